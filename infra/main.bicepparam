using 'main.bicep'

// Yours. With azd, `azd env set D365_URL …` fills these in; with the Azure CLI, write values here or set the
// variables of the same names. A variable that is empty is one that is not set: GitHub makes them so. Everything else
// has a default: main.bicep describes each parameter.

param d365Url = readEnvironmentVariable('D365_URL', '')
param d365InJobsFile = readEnvironmentVariable('D365_IN_JOBS_FILE', '') == 'true'
var jobs = readEnvironmentVariable('JOBS_FILE', '')
param jobsFile = empty(jobs) ? 'jobs.json' : jobs
var begins = readEnvironmentVariable('BRIDGE_NAME', '')
param name = empty(begins) ? 'bridge' : begins
param location = readEnvironmentVariable('AZURE_LOCATION', '')

// People who are told when something fails, separated by commas.
var emails = split(readEnvironmentVariable('ALERT_EMAILS', ''), ',')
param alertEmails = filter(map(emails, email => trim(email)), email => !empty(email))

// An app registration in place of the managed identity, and D365's tenant where that is another.
param d365ClientId = readEnvironmentVariable('D365_CLIENT_ID', '')
param d365TenantId = readEnvironmentVariable('D365_TENANT_ID', '')

// App settings of your own, in JSON: {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://…"}.
var settings = readEnvironmentVariable('EXTRA_SETTINGS', '')
param extraSettings = json(empty(settings) ? '{}' : settings)

// The code in the same deployment, from a zip at this URL; empty where azd or the CLI deploys it.
param packageUri = readEnvironmentVariable('PACKAGE_URI', '')
