using 'main.bicep'

// Yours. With azd, `azd env set D365_URL …` fills these in; with the Azure CLI, write values here or set the
// variables of the same names. Everything else has a default: main.bicep describes each parameter.

param d365Url = readEnvironmentVariable('D365_URL')
param jobsFile = readEnvironmentVariable('JOBS_FILE', 'jobs.json')
param name = readEnvironmentVariable('BRIDGE_NAME', 'bridge')
param location = readEnvironmentVariable('AZURE_LOCATION', 'westeurope')

// People who are told when something fails, separated by commas.
var emails = readEnvironmentVariable('ALERT_EMAILS', '')
param alertEmails = empty(emails) ? [] : split(emails, ',')

// An app registration in place of the managed identity, and D365's tenant where that is another. The secret goes into
// Key Vault; where it is left out later, the one that is there stays. Write none here: this file is in git.
param d365ClientId = readEnvironmentVariable('D365_CLIENT_ID', '')
param d365ClientSecret = readEnvironmentVariable('D365_CLIENT_SECRET', '')
param d365TenantId = readEnvironmentVariable('D365_TENANT_ID', '')

// App settings of your own, in JSON: {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://…"}.
param extraSettings = json(readEnvironmentVariable('EXTRA_SETTINGS', '{}'))

// The code in the same deployment, from a zip at this URL; empty where azd or the CLI deploys it.
var package = readEnvironmentVariable('PACKAGE_URI', '')
param packageUri = package

// Needs running code, which a package brings; azd sets it to true after it has deployed the code (azure.yaml).
param createEventSubscription = !empty(package) || bool(readEnvironmentVariable('SUBSCRIBE_TO_EVENTS', 'false'))
