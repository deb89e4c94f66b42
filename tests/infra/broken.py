"""Ways to break `infra/`, each with the check that must find it and what it must say."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Broken:
    """The first `old` in `file` (in infra/) becomes `new`; `check` must say `says`."""

    check: str
    says: str
    file: str
    old: str
    new: str


WORKBOOK = "modules/workbook.bicep"
NETWORK, ENDPOINTS = "modules/network.bicep", "modules/endpoints.bicep"
APP, ROLES, STORAGE = "modules/app.bicep", "modules/roles.bicep", "modules/storage.bicep"
MAIN, EVENTS, ALERTS = "main.bicep", "modules/subscription.bicep", "modules/alerts.bicep"
PARAMETERS, DEPLOY = "main.bicepparam", "../docs/deploy.md"

OWNER = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"
CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
READER = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
QUEUES = "974c5e8b-45b9-4653-ba55-5f855dd0fb88"
PROCESSOR = "8a0f0c08-91a1-4084-bc3d-661d67233fed"
SENDER = "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a"
TABLES = "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3"
PUBLISHER = "3913510d-42f4-4e42-8a64-420c390055eb"
EVERYTHING = "b24988ac-6180-42a0-ab88-20f7382dd24c"  # Contributor

BROKEN: Final = (
    # the files by themselves
    Broken("files", "not Bicep", MAIN, "module app '", "module app = '"),
    Broken(
        "files", "tokne is not declared", MAIN, "'${name}-id-${token}'", "'${name}-id-${tokne}'"
    ),
    Broken("files", "locaton is not declared", ROLES, "scope: insights", "scope: locaton"),
    Broken(
        "files",
        "param keepDays is not used",
        "modules/monitoring.bicep",
        "retentionInDays: keepDays",
        "retentionInDays: 90",
    ),
    Broken(
        "files",
        "var importsContainer is not used",
        STORAGE,
        "string = importsContainer",
        "string = 'imports'",
    ),
    Broken(
        "files",
        "resource data is not used",
        "modules/topic.bicep",
        "source: data.id",
        "source: dataAccountName",
    ),
    Broken(
        "files",
        "param silenceMinutes has no description",
        ALERTS,
        "@description('Minutes without a run of an export job after which an alert is raised.')\n",
        "",
    ),
    Broken(
        "files",
        "files.kql: no Bicep file names it",
        WORKBOOK,
        "'../queries/files.kql'",
        "'../queries/jobs.kql'",
    ),
    Broken("deploys", "replace: ", ALERTS, "  'GONE',\n", ""),
    Broken("deploys", "identity has no name", "modules/identity.bicep", "  name: name\n", ""),
    Broken("files", "identity is declared twice", MAIN, "module network '", "module identity '"),
    # modules and parameters
    Broken(
        "deploys",
        "has no parameter locations",
        MAIN,
        "    location: location\n    keepDays",
        "    locations: location\n    keepDays",
    ),
    Broken(
        "deploys", "parameter keepDays is not given", MAIN, "    keepDays: keepTelemetryDays\n", ""
    ),
    Broken(
        "deploys", "keepDays must be int", MAIN, "keepDays: keepTelemetryDays", "keepDays: 'long'"
    ),
    Broken(
        "deploys",
        "there is no principalID",
        MAIN,
        "identity.outputs.principalId",
        "identity.outputs.principalID",
    ),
    Broken("deploys", "is not there", MAIN, "modules/topic.bicep", "modules/topics.bicep"),
    Broken("deploys", "alert-file.kql is not there", ALERTS, "alert-files.kql", "alert-file.kql"),
    Broken("deploys", "does not fit the type", STORAGE, "  parent: hostBlobs\n", ""),
    Broken(
        "deploys",
        "is not deployed by us",
        MAIN,
        "dataAccountName: storage.outputs.dataAccountName\n    packageContainer",
        "dataAccountName: 'other'\n    packageContainer",
    ),
    Broken(
        "deploys",
        "is deployed twice",
        ROLES,
        "guid(host.id, appPrincipalId, roleIds.tableContributor)",
        "guid(host.id, appPrincipalId, roleIds.blobOwner)",
    ),
    Broken(
        "deploys",
        "instanceMemoryMB may not be 1024",
        MAIN,
        "param instanceMemoryMB int = 2048",
        "param instanceMemoryMB int = 1024",
    ),
    Broken(
        "parameter_file", "has no parameter d365URL", PARAMETERS, "param d365Url", "param d365URL"
    ),
    Broken(
        "parameter_file",
        "parameter d365Url is not given",
        PARAMETERS,
        "param d365Url = readEnvironmentVariable('D365_URL')\n",
        "",
    ),
    Broken("parameter_file", "not Bicep", PARAMETERS, "'westeurope')", "'westeurope'"),
    Broken("parameter_file", "must name its Bicep file", PARAMETERS, "using 'main.bicep'", ""),
    Broken("parameter_file", "events subscribed: False", PARAMETERS, "!empty(package) || ", ""),
    # Azure's types
    Broken(
        "types",
        "minTLSVersion: there is no such property",
        APP,
        "      minTlsVersion:",
        "      minTLSVersion:",
    ),
    Broken("types", "must be one of", APP, "ftpsState: 'Disabled'", "ftpsState: 'Off'"),
    Broken(
        "types",
        "instanceMemory: there is no such property",
        APP,
        "instanceMemoryMB: instanceMemoryMB",
        "instanceMemory: instanceMemoryMB",
    ),
    Broken(
        "types",
        "must be one of SystemAssignedIdentity",
        APP,
        "type: 'UserAssignedIdentity'",
        "type: 'UserAssigned'",
    ),
    Broken("types", ".sku: is missing", STORAGE, "  sku: { name: 'Standard_LRS' }\n", ""),
    Broken("types", "must be bool", STORAGE, "enabled: true, days", "enabled: 'true', days"),
    Broken(
        "types",
        "must be int",
        "modules/monitoring.bicep",
        "retentionInDays: keepDays",
        "retentionInDays: '90'",
    ),
    Broken(
        "types",
        "operatorType: must be one of",
        EVENTS,
        "operatorType: 'StringIn'",
        "operatorType: 'StringsIn'",
    ),
    Broken(
        "types",
        "maxDeliveries: there is no such property",
        EVENTS,
        "maxDeliveryAttempts",
        "maxDeliveries",
    ),
    Broken(
        "types",
        "endpointType: must be one of",
        EVENTS,
        "endpointType: 'WebHook'",
        "endpointType: 'Webhook'",
    ),
    Broken(
        "types",
        "window: there is no such property",
        ALERTS,
        "windowSize: rule.over",
        "window: rule.over",
    ),
    Broken(
        "types",
        "must be one of Average",
        ALERTS,
        "timeAggregation: 'Total'",
        "timeAggregation: 'Sum'",
    ),
    Broken(
        "types",
        "principal: there is no such property",
        ROLES,
        "    principalId: topicPrincipalId",
        "    principal: topicPrincipalId",
    ),
    Broken("types", "principalId: is missing", ROLES, "    principalId: topicPrincipalId\n", ""),
    Broken(
        "types",
        "is not in schemas.json",
        "modules/topic.bicep",
        "systemTopics@2025-02-15",
        "systemTopics@2022-06-15",
    ),
    # settings
    *(
        Broken("app_settings", f"{name} is read and not set", APP, line, "")
        for name, line in (
            ("D365_URL", "      D365_URL: d365Url\n"),
            ("JOBS_FILE", "      JOBS_FILE: jobsFile\n"),
            ("EXPORT_SCHEDULE", "      EXPORT_SCHEDULE: exportSchedule\n"),
            ("RECONCILE_SCHEDULE", "      RECONCILE_SCHEDULE: reconcileSchedule\n"),
            (
                "DataStorage__blobServiceUri",
                "      DataStorage__blobServiceUri: data.properties.primaryEndpoints.blob\n",
            ),
            (
                "DataStorage__clientId",
                "      DataStorage__clientId: identity.properties.clientId\n",
            ),
        )
    ),
    Broken(
        "app_settings",
        "D365_HOST is set and nobody reads it",
        APP,
        "D365_URL: d365Url",
        "D365_HOST: d365Url",
    ),
    Broken(
        "app_settings",
        "the app would not start",
        APP,
        "D365_URL: d365Url",
        "D365_URL: '${d365Url}/data'",
    ),
    Broken(
        "app_settings",
        "OTEL_EXPORTER_OTLP_HEADERS, which was asked for, is not set",
        APP,
        "    clientSecret,\n    extraSettings\n",
        "    clientSecret\n",
    ),
    Broken(
        "parameter_file",
        "d365ClientSecret is 'in git'",
        PARAMETERS,
        "readEnvironmentVariable('D365_CLIENT_SECRET', '')",
        "'in git'",
    ),
    Broken(
        "parameter_file",
        "extraSettings is {}",
        PARAMETERS,
        "'EXTRA_SETTINGS'",
        "'SETTINGS'",
    ),
    Broken(
        "identity_settings",
        "AzureWebJobsStorage__clientId is None",
        APP,
        "      AzureWebJobsStorage__clientId: identity.properties.clientId\n",
        "",
    ),
    Broken(
        "identity_settings",
        "AzureWebJobsStorage__queueServiceUri names no account",
        APP,
        "AzureWebJobsStorage__queueServiceUri: host.properties.primaryEndpoints.queue",
        "AzureWebJobsStorage__queueServiceUri: host.properties.primaryEndpoints.blob",
    ),
    Broken(
        "identity_settings",
        "AZURE_CLIENT_ID is",
        APP,
        "AZURE_CLIENT_ID: empty(d365SecretUri) ? identity",
        "AZURE_CLIENT_ID: empty(d365SecretUri) ? host",
    ),
    Broken(
        "identity_settings",
        "APPLICATIONINSIGHTS_AUTHENTICATION_STRING is",
        APP,
        "Authorization=AAD",
        "Authorization=aad",
    ),
    Broken(
        "identity_settings",
        "the app does not run as",
        APP,
        "userAssignedIdentities: { '${identity.id}': {} }",
        "userAssignedIdentities: {}",
    ),
    Broken(
        "identity_settings",
        "AZURE_CLIENT_SECRET is no Key Vault reference",
        APP,
        "'@Microsoft.KeyVault(SecretUri=${d365SecretUri})'",
        "d365SecretUri",
    ),
    # containers, queues, connections
    *(
        Broken("containers_and_queues", f"container {name} is used and not made", STORAGE, old, new)
        for name, old, new in (
            ("exports", "['exports', 'imports',", "['imports',"),
            ("imports", "'imports', 'imports-p", "'imports-p"),
            ("imports-processing", "'imports-processing', ", ""),
            ("imports-succeeded", ", 'imports-succeeded', ", ", "),
            ("imports-failed", ", 'imports-failed', ", ", "),
            ("templates", ", 'templates']", "]"),
            ("journal", "[journalContainer, deadLetterContainer]", "[deadLetterContainer]"),
            ("dead-letters", "[journalContainer, deadLetterContainer]", "[journalContainer]"),
        )
    ),
    Broken(
        "containers_and_queues",
        "container export is made and not used",
        STORAGE,
        "['exports',",
        "['export',",
    ),
    Broken(
        "containers_and_queues",
        "queue import-status is used and not made",
        STORAGE,
        "['import-status', 'notifications']",
        "['imports-status']",
    ),
    Broken(
        "containers_and_queues",
        "the rule journal is off",
        STORAGE,
        "  name: 'journal'\n  enabled: true",
        "  name: 'journal'\n  enabled: false",
    ),
    Broken(
        "containers_and_queues", "succeeded files: {", STORAGE, "tierToCool: {", "tierToCold: {"
    ),
    Broken("containers_and_queues", "the journal grows for ever", STORAGE, "  [journal],\n", ""),
    Broken(
        "connections",
        "check_status: DataStorage__queueServiceUri is None",
        APP,
        "DataStorage__queueServiceUri",
        "Data__queueServiceUri",
    ),
    Broken(
        "connections",
        "import_file: DataStorage__blobServiceUri is None",
        APP,
        "DataStorage__blobServiceUri",
        "Data__blobServiceUri",
    ),
    Broken(
        "connections",
        "import_file: DataStorage__credential is not set",
        APP,
        "      DataStorage__credential: 'managedidentity'\n",
        "",
    ),
    Broken(
        "connections",
        "not the data account's",
        APP,
        "DataStorage__queueServiceUri: data.",
        "DataStorage__queueServiceUri: host.",
    ),
    # events
    Broken(
        "events",
        "endpointUrl is",
        EVENTS,
        "var functionName = 'import_file'",
        "var functionName = 'import_files'",
    ),
    Broken("events", "systemKey is", EVENTS, "default/blobs_extension'", "default/blob_extension'"),
    Broken("events", "endpointUrl is", EVENTS, "    value: key\n", ""),
    Broken(
        "events", "subjectBeginsWith is", EVENTS, "${importsContainer}/'", "${importsContainer}'"
    ),
    Broken(
        "events",
        "event types is",
        EVENTS,
        "'Microsoft.Storage.BlobCreated'",
        "'Microsoft.Storage.BlobDeleted'",
    ),
    Broken("events", "data.api is", EVENTS, "'PutBlockList', ", ""),
    Broken(
        "events",
        "dead-letter container is",
        STORAGE,
        "var deadLetterContainer = 'dead-letters'",
        "var deadLetterContainer = 'letters'",
    ),
    Broken(
        "events",
        "'properties' is missing",
        EVENTS,
        "  properties: {\n    dest",
        "  tags: {\n    dest",
    ),
    Broken(
        "events",
        "does not come from a secret",
        EVENTS,
        "guid(host.listKeys().keys[0].value, 'blobs_extension', app.id)",
        "guid(app.id)",
    ),
    Broken(
        "events",
        "topic source is",
        "modules/topic.bicep",
        "source: data.id",
        "source: resourceGroup().id",
    ),
    Broken(
        "threads",
        "host.json wants 6",
        APP,
        "PYTHON_THREADPOOL_THREAD_COUNT: '8'",
        "PYTHON_THREADPOOL_THREAD_COUNT: '4'",
    ),
    # permissions: a role that does not do, one that does too much, one more, none, one in the wrong place
    *(
        Broken("permissions", says, ROLES, old, new)
        for says, old, new in (
            ("no role allows Insights/Telemetry/Write", PUBLISHER, SENDER),
            ("no role allows entities/add/action", TABLES, SENDER),
            ("no role allows blobs/delete", CONTRIBUTOR, READER),
            ("no role allows messages/add/action, messages/write, queues/read", QUEUES, PROCESSOR),
            (
                "Owner is broader than needed: Storage Blob Data Contributor does",
                CONTRIBUTOR,
                OWNER,
            ),
            ("b24988ac-6180-42a0-ab88-20f7382dd24c is no role", OWNER, EVERYTHING),
            ("Storage Blob Data Contributor is not needed", "scope: deadLetters", "scope: data"),
            ("on <the whole resource group: Monitoring Metrics", "  scope: insights\n", ""),
            ("dead-letters: no role allows blobs/write", "scope: deadLetters", "scope: host"),
        )
    ),
    Broken(
        "permissions", "vaults/secrets/getSecret", "modules/vault.bicep", "  scope: vault\n", ""
    ),
    # safety
    *(
        Broken("safety", says, file, old, new)
        for says, file, old, new in (
            (
                "allowSharedKeyAccess is True",
                STORAGE,
                "allowSharedKeyAccess: false",
                "allowSharedKeyAccess: true",
            ),
            (
                "allowCrossTenantReplication is True",
                STORAGE,
                "allowCrossTenantReplication: false",
                "allowCrossTenantReplication: true",
            ),
            (
                "allowBlobPublicAccess is True",
                STORAGE,
                "allowBlobPublicAccess: false",
                "allowBlobPublicAccess: true",
            ),
            ("minimumTlsVersion is None", STORAGE, "  minimumTlsVersion: 'TLS1_2'\n", ""),
            ("httpsOnly is None", APP, "    httpsOnly: true\n", ""),
            (
                "minTlsVersion is '1.0'",
                APP,
                "      minTlsVersion: '1.2'",
                "      minTlsVersion: '1.0'",
            ),
            ("runtime.version is '3.11'", APP, "version: '3.13'", "version: '3.11'"),
            ("properties.allow is True", APP, "allow: false", "allow: true"),
            ("not off for both", APP, "['ftp', 'scm']", "['ftp']"),
            (
                "DisableLocalAuth is False",
                "modules/monitoring.bicep",
                "DisableLocalAuth: true",
                "DisableLocalAuth: false",
            ),
            (
                "an empty secret is written over",
                "modules/vault.bicep",
                " = if (!empty(secret)) {",
                " = {",
            ),
            (
                "soft delete is off",
                STORAGE,
                "    deleteRetentionPolicy: { enabled: true, days: keepDeletedDays }\n",
                "",
            ),
            (
                "soft delete of containers is off",
                STORAGE,
                "    containerDeleteRetentionPolicy: { enabled: true, days: keepDeletedDays }\n",
                "",
            ),
            (
                "data: a hierarchical namespace is off",
                STORAGE,
                "    isHnsEnabled: hierarchicalNamespace\n",
                "",
            ),
            (
                "versioning is on",
                STORAGE,
                "isVersioningEnabled: !hierarchicalNamespace",
                "isVersioningEnabled: true",
            ),
            (
                "can be reached from outside",
                STORAGE,
                "private ? 'Disabled' : 'Enabled'",
                "'Enabled'",
            ),
            (
                "output key gives a secret away",
                EVENTS,
                "// functions/import_file.py",
                "output key string = host.listKeys().keys[0].value",
            ),
            ("param secret is not @secure()", "modules/vault.bicep", "@secure()\n", ""),
            ("param extraSettings is not @secure()", APP, "@secure()\n", ""),
        )
    ),
    # the private network
    *(
        Broken("private_network", says, file, old, new)
        for says, file, old, new in (
            (
                "table of Storage/storageAccounts/bridgehost",
                MAIN,
                "hostServices = ['blob', 'queue', 'table']",
                "hostServices = ['blob', 'queue']",
            ),
            (
                "table of Storage/storageAccounts/bridgedata",
                MAIN,
                ": ['blob', 'queue']\n",
                ": ['blob', 'queue', 'table']\n",
            ),
            (
                "dfs of Storage/storageAccounts/bridgedata",
                MAIN,
                "['blob', 'queue', 'dfs']",
                "['blob', 'queue']",
            ),
            ("has no private endpoint", ENDPOINTS, "            groupIds: [service]\n", ""),
            (
                "delegated to ['Microsoft.App']",
                NETWORK,
                "'Microsoft.App/environments'",
                "'Microsoft.App'",
            ),
            ("is not linked to the network", NETWORK, "{ id: network.id }", "{ id: 'other' }"),
            ("has its name in", ENDPOINTS, "zones[i].id", "zones[0].id"),
            ("is not in the network", ENDPOINTS, "{ id: subnetId }", "{ id: account.id }"),
            ("the app is not in the network", APP, "empty(subnetId) ? null : subnetId", "null"),
            (
                "was not asked for",
                MAIN,
                "network.bicep' = if (privateNetwork) {",
                "network.bicep' = {",
            ),
        )
    ),
    # what has to fit together
    *(
        Broken("wiring", says, file, old, new)
        for says, file, old, new in (
            (
                "enableRbacAuthorization is None",
                "modules/vault.bicep",
                "    enableRbacAuthorization: true\n",
                "",
            ),
            ("enableSoftDelete is None", "modules/vault.bicep", "    enableSoftDelete: true\n", ""),
            ("addressPrefix is '10.20.0.0/27'", NETWORK, "prefix, 26, 0", "prefix, 27, 0"),
            ("sourceId is None", WORKBOOK, "    sourceId: workspaceId\n", ""),
            ("workbook.kind is None", WORKBOOK, "  kind: 'shared'\n", ""),
            ("app.kind is None", APP, "  kind: 'functionapp,linux'\n", ""),
            ("app.identity.type is None", APP, "    type: 'UserAssigned'\n", ""),
            (
                "publicNetworkAccess is 'Disabled'",
                APP,
                "publicNetworkAccess: 'Enabled'",
                "publicNetworkAccess: 'Disabled'",
            ),
            ("principalType is None", ROLES, "    principalType: 'ServicePrincipal'\n", ""),
            ("networkAcls.bypass is None", STORAGE, "    bypass: 'AzureServices' //", "    //"),
            (
                "topicType is None",
                "modules/topic.bicep",
                "    topicType: 'Microsoft.Storage.StorageAccounts'\n",
                "",
            ),
            (
                "eventDeliverySchema is None",
                EVENTS,
                "    eventDeliverySchema: 'EventGridSchema'\n",
                "",
            ),
            ("maxDeliveryAttempts is None", EVENTS, "      maxDeliveryAttempts: 30\n", ""),
            ("skipQueryValidation is None", ALERTS, "      skipQueryValidation: true\n", ""),
            ("zones.location is None", NETWORK, "    location: 'global'\n", ""),
            ("sku.name is 'Y1'", APP, "name: 'FC1'", "name: 'Y1'"),
            ("sku.tier is None", APP, "tier: 'FlexConsumption', ", ""),
            ("properties.reserved is None", APP, "{ reserved: true }", "{}"),
            ("serverFarmId is None", APP, "    serverFarmId: plan.id\n", ""),
            (
                "keyVaultReferenceIdentity is None",
                APP,
                "    keyVaultReferenceIdentity: identity.id\n",
                "",
            ),
            ("storage.value is", APP, "blob}${packageContainer}'", "blob}packages'"),
            ("storage.type is None", APP, "          type: 'blobContainer'\n", ""),
            (
                "authentication.type is 'System",
                APP,
                "type: 'UserAssignedIdentity'",
                "type: 'SystemAssignedIdentity'",
            ),
            (
                "userAssignedIdentityResourceId is None",
                APP,
                "            userAssignedIdentityResourceId: identity.id\n",
                "",
            ),
            (
                "container for the code package",
                STORAGE,
                "packageContainer = 'code'",
                "packageContainer = 'app'",
            ),
            (
                "WorkspaceResourceId is None",
                "modules/monitoring.bicep",
                "    WorkspaceResourceId: workspace.id\n",
                "",
            ),
            ("topic.identity.type is None", "modules/topic.bicep", "  identity: {", "  tags: {"),
            (
                "deadLetterWithResourceIdentity.identity.type is None",
                EVENTS,
                "      identity: { type: 'SystemAssigned' }\n",
                "",
            ),
            ("scopes.0 is None", ALERTS, "scopes: [workspaceId]", "scopes: []"),
            (
                "alerts.properties.enabled is False",
                ALERTS,
                "      enabled: true\n      scopes",
                "      enabled: false\n      scopes",
            ),
            ("timeAggregation is 'Average'", ALERTS, "'Count'", "'Average'"),
            ("operator is 'LessThan'", ALERTS, "'GreaterThan'", "'LessThan'"),
            ("threshold is 1", ALERTS, "threshold: 0", "threshold: 1"),
            (
                "deadLetters.properties.scopes.0",
                ALERTS,
                "scopes: [topicId]",
                "scopes: [workspaceId]",
            ),
            (
                "deadLetters.properties.enabled",
                ALERTS,
                "    enabled: true\n    scopes: [topicId]",
                "    enabled: false\n    scopes: [topicId]",
            ),
            ("windowSize is None", ALERTS, "    windowSize: 'PT1H'\n", ""),
            ("metricName is 'DroppedEventCount'", ALERTS, "DeadLetteredCount", "DroppedEventCount"),
            ("timeAggregation is 'Maximum'", ALERTS, "'Total'", "'Maximum'"),
            (
                "deadLetters.properties.criteria.allOf.0.operator",
                ALERTS,
                "'Total'\n          operator: 'GreaterThan'",
                "'Total'\n          operator: 'LessThan'",
            ),
            (
                "deadLetters.properties.criteria.allOf.0.threshold",
                ALERTS,
                "          threshold: 0\n        }\n      ]",
                "          threshold: 9\n        }\n      ]",
            ),
            ("app does not wait for roles", MAIN, "[roles, endpoints]", "[endpoints]"),
            ("app does not wait for endpoints", MAIN, "[roles, endpoints]", "[roles]"),
            ("endpoints does not wait for storage", MAIN, "    dependsOn: [storage]\n", ""),
            ("subscription does not wait for code", MAIN, "[code, roles]", "[roles]"),
            ("subscription does not wait for roles", MAIN, "[code, roles]", "[code]"),
            ("does not wait for systemKey", EVENTS, "  dependsOn: [systemKey]\n", ""),
            (
                "lifecycle does not wait for dataBlobs",
                STORAGE,
                "  dependsOn: [dataBlobs] //",
                "  //",
            ),
        )
    ),
    *(
        Broken("workbook", says, WORKBOOK, old, new)
        for says, old, new in (
            ("is None over", "      version: 'Notebook/1.0'\n", ""),
            ("Jobs: title is None", "    title: chart.title\n", ""),
            ("Jobs is shown as None", "    visualization: chart.shape\n", ""),
            ("Jobs is of the type 1", "type: 3 //", "type: 1 //"),
            (
                "resourceType is None",
                "    resourceType: 'microsoft.operationalinsights/workspaces'\n",
                "",
            ),
            ("at the times {None}", "    timeContextFromParameter: 'Time'\n", ""),
            ("chosen as {'Day'}", "name: 'Time'", "name: 'Day'"),
            ("chosen as set()", "type: 4 //", "type: 1 //"),
        )
    ),
    *(
        Broken("outputs", says, MAIN, old, new)
        for says, old, new in (
            ("deploy.md: reads functionAppName", "output functionAppName", "output appName"),
            ("deploy.yml: reads functionAppName", "output functionAppName", "output appName"),
            ("deploy.md: reads dataAccountName", "output dataAccountName", "output dataName"),
            ("azure.yaml: reads nextSteps", "output nextSteps", "output steps"),
            ("federatedCredential is", "${tenant().tenantId}/v2.0", "${tenant().tenantId}"),
            (
                "federatedCredential is",
                "subject: identity.outputs.principalId",
                "subject: clientId",
            ),
            ("federatedCredential is", "      audience: 'api://AzureADTokenExchange'\n", ""),
        )
    ),
    # outputs, queries, azd
    Broken(
        "next_steps",
        "identityClientId is 'x'",
        MAIN,
        "output identityClientId string = clientId",
        "output identityClientId string = 'x'",
    ),
    Broken(
        "next_steps",
        "do not say Authorization policy",
        MAIN,
        "Authorization policy add",
        "Policy add",
    ),
    Broken(
        "queries",
        "there is no event file.fail",
        "queries/alert-files.kql",
        '"file.failed"',
        '"file.fail"',
    ),
    Broken(
        "queries",
        "always carries cause",
        "queries/alert-files.kql",
        "fields.reason",
        "fields.cause",
    ),
    Broken(
        "queries", "bridge-poison: ", "queries/alert-poison.kql", "| where event", "| wher event"
    ),
    *(
        Broken("alerts", says, ALERTS, old, new)
        for says, old, new in (
            ("e-mail does not say", "            dimensions: map(", "            // map("),
            ("not told for every operation", "operator: 'Include'", "operator: 'Exclude'"),
            ("job-silent looks back further than", "over: 'P2D'", "over: 'P1D'"),
            (
                "file-failed looks back less",
                "every: 'PT15M'\n    over: 'PT1H'",
                "every: 'PT1H'\n    over: 'PT1H'",
            ),
            ("None is no duration", "      evaluationFrequency: rule.every\n", ""),
            ("job-silent: a state ends", "    lasting: true", "    lasting: false"),
            (
                "is no column of its query",
                "            query: '${",
                "            metricMeasureColumn: '${",
            ),
            ("None is no duration", "      windowSize: rule.over\n", ""),
            ("P2 is no duration", "over: 'P2D'", "over: 'P2'"),
            ("fileName is no column", "['job', 'file', 'reason']", "['job', 'fileName']"),
        )
    ),
    Broken("alerts", "tells []", ALERTS, "actionGroups: actionGroups }", "actionGroups: [] }"),
    Broken(
        "queries", "names no event", "queries/files.kql", "| where event in", "// | where event in"
    ),
    Broken(
        "documented",
        "names privateNet, which",
        DEPLOY,
        "`privateNetwork`",
        "`privateNet`",
    ),
    Broken(
        "documented", "does not name the variable BRIDGE", PARAMETERS, "'BRIDGE_NAME'", "'BRIDGE'"
    ),
    Broken("documented", "sets D365, which", DEPLOY, "export D365_URL", "export D365"),
    Broken("documented", "this block of code has no end", DEPLOY, "```kusto\n", ""),
    Broken(
        "documented",
        "d365-setup.md: line",
        "../docs/d365-setup.md",
        "   ```\n\nPackages",
        "\nPackages",
    ),
    Broken(
        "documented", "a ` is without its other one", DEPLOY, "`reconcile`. If", "`reconcile. If"
    ),
    Broken(
        "documented",
        "a parenthesis is not closed",
        DEPLOY,
        "functionAppName.value --output tsv)",
        "functionAppName.value --output tsv",
    ),
    Broken(
        "documented",
        "APP is not set before",
        DEPLOY,
        "APP=$(azd env get-value functionAppName)\n",
        "",
    ),
    Broken("documented", "GROUP is not set before", DEPLOY, "GROUP=rg-bridge-test\n", ""),
    Broken("documented", "GROUP is not set before", DEPLOY, "$GROUP = 'rg-bridge-test'\n", ""),
    Broken(
        "documented", "bridge-export-failing is looked at", ALERTS, "every: 'PT1H'", "every: 'P1D'"
    ),
    Broken("documented", "the alert bridge-quiet", ALERTS, "name: 'job-silent'", "name: 'quiet'"),
    Broken(
        "documented",
        "does not say what Storage Blob Data Reader is for",
        ROLES,
        CONTRIBUTOR,
        READER,
    ),
    Broken(
        "documented",
        "the code package differs",
        "../.github/workflows/deploy.yml",
        " shared host",
        " host",
    ),
    Broken(
        "azd", "has no service main", APP, "'azd-service-name': 'app'", "'azd-service-name': 'main'"
    ),
    Broken("azd", "does not build the service", "../azure.yaml", "    remoteBuild: true", "    # "),
    Broken(
        "azd", "the hook for posix", "../azure.yaml", "azd env set SUBSCRIBE_TO_EVENTS true\n", ""
    ),
    Broken(
        "azd",
        "after the hook for posix has failed",
        "../azure.yaml",
        "          azd env set SUBSCRIBE_TO_EVENTS false\n",
        "",
    ),
    Broken(
        "azd",
        "after the hook for windows has failed",
        "../azure.yaml",
        "{ azd env set SUBSCRIBE_TO_EVENTS false; exit 1 }",
        "{ exit 1 }",
    ),
    Broken(
        "azd",
        "SUBSCRIBE_TO_EVENTS, which main.bicepparam does not read",
        PARAMETERS,
        "SUBSCRIBE_TO_EVENTS",
        "EVENTS",
    ),
)
