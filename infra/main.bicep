// d365-blob-bridge: everything it runs on, in one resource group.
//
//   az deployment group create --resource-group GROUP --parameters infra/main.bicepparam
//   azd up
//
// docs/deploy.md goes through it step by step. Nothing here holds a secret: the app reaches storage, Application
// Insights and D365 as its managed identity (the one exception, on request, is modules/vault.bicep).

targetScope = 'resourceGroup'

@description('Begins the names of all resources: letters, digits and hyphens.')
@minLength(3)
@maxLength(24)
param name string = 'bridge'

@description('The region. Flex Consumption must be offered there: az functionapp list-flexconsumption-locations.')
param location string = resourceGroup().location

@description('The D365 environment: https:// and its host, without a path.')
param d365Url string

@description('The jobs file, relative to the root of the code package.')
param jobsFile string = 'jobs.json'

@description('When export queues are asked: NCRONTAB with six fields, in UTC.')
param exportSchedule string = '0 */5 * * * *'

@description('How many packages are exported side by side, over all jobs (1 to 52). D365 limits the requests of an application.')
@minValue(1)
@maxValue(52)
param exportParallelism int = 8

@description('When files that an event or a message missed are looked for: NCRONTAB with six fields, in UTC.')
param reconcileSchedule string = '30 */5 * * * *'

@description('Memory of an instance in MB. Files are streamed, so their size does not matter; a quarter costs a quarter.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('The most instances at a time. D365 limits its callers; more instances do not make it faster.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('URL of a zip with the code, which Azure fetches and builds. Empty: azd or the CLI deploys the code.')
@secure()
param packageUri string = ''

@description('Subscribe the app to the events of dropped files. That needs running code: see docs/deploy.md, Events.')
param createEventSubscription bool = !empty(packageUri)

@description('How the data account keeps its copies: within a building, across zones, across regions, or both.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param dataRedundancy string = 'Standard_LRS'

@description('A hierarchical namespace in the data account, for SFTP. It can not be changed later, and rules out versioning.')
param hierarchicalNamespace bool = false

@description('Days for which deleted blobs and former versions can be brought back.')
@minValue(1)
@maxValue(365)
param keepDeletedDays int = 14

@description('Days after which succeeded files move to the cool tier; 0 for never.')
@minValue(0)
param coolSucceededAfterDays int = 30

@description('Days after which succeeded files are deleted; 0 for never.')
@minValue(0)
param deleteSucceededAfterDays int = 0

@description('Days for which the journal is kept, in which the operating page shows what happened.')
@minValue(2)
@maxValue(365)
param keepJournalDays int = 30

@description('Days for which telemetry is kept.')
@minValue(30)
@maxValue(730)
param keepTelemetryDays int = 90

@description('E-mail addresses that get the alerts.')
param alertEmails array = []

@description('Resource id of an action group of yours that gets the alerts too, or empty.')
param actionGroupId string = ''

@description('Minutes without a run of an export job after which an alert is raised.')
@minValue(10)
@maxValue(1440)
param exportSilenceMinutes int = 60

@description('Storage by private endpoints only, and the app in a virtual network.')
param privateNetwork bool = false

@description('Addresses of that network: a /24, of which two /26 are used.')
param networkPrefix string = '10.20.0.0/24'

@description('Client id of an app registration to use for D365 in place of the managed identity, or empty.')
param d365ClientId string = ''

@description('The tenant of D365, where that is not the subscription\'s, or empty. The registration is then a multi-tenant one of the subscription\'s tenant, and needs no secret: it trusts the managed identity by a federated credential.')
param d365TenantId string = ''

@description('Its client secret; kept in Key Vault. Empty: the one that is there stays.')
@secure()
param d365ClientSecret string = ''

@description('App settings of your own, beside those that the app needs: a name and a value each. A deployment replaces all settings, so one that is set elsewhere is gone with the next.')
@secure()
param extraSettings object = {}

var token = uniqueString(resourceGroup().id, name)
var plain = take(toLower(replace(name, '-', '')), 7)
var hostAccountName = '${plain}host${token}'
var dataAccountName = '${plain}data${token}'
// What has a private endpoint: what is used of each account, and how tools for a hierarchical namespace speak to it.
var hostServices = ['blob', 'queue', 'table']
var dataServices = hierarchicalNamespace ? ['blob', 'queue', 'dfs'] : ['blob', 'queue']
var useClientSecret = !empty(d365ClientId) && empty(d365TenantId)

module identity 'modules/identity.bicep' = {
  params: {
    name: '${name}-id-${token}'
    location: location
  }
}

module network 'modules/network.bicep' = if (privateNetwork) {
  params: {
    name: '${name}-net-${token}'
    location: location
    prefix: networkPrefix
    services: union(hostServices, dataServices)
  }
}

module storage 'modules/storage.bicep' = {
  params: {
    hostAccountName: hostAccountName
    dataAccountName: dataAccountName
    location: location
    redundancy: dataRedundancy
    hierarchicalNamespace: hierarchicalNamespace
    keepDeletedDays: keepDeletedDays
    coolSucceededAfterDays: coolSucceededAfterDays
    deleteSucceededAfterDays: deleteSucceededAfterDays
    keepJournalDays: keepJournalDays
    private: privateNetwork
  }
}

module endpoints 'modules/endpoints.bicep' = [
  for account in [
    { name: hostAccountName, services: hostServices }
    { name: dataAccountName, services: dataServices }
  ]: if (privateNetwork) {
    name: 'endpoints-${account.name}'
    params: {
      location: location
      accountName: account.name
      services: account.services
      subnetId: network!.outputs.endpointsSubnetId
    }
    dependsOn: [storage]
  }
]

module monitoring 'modules/monitoring.bicep' = {
  params: {
    name: '${name}-${token}'
    location: location
    keepDays: keepTelemetryDays
  }
}

module topic 'modules/topic.bicep' = {
  params: {
    name: '${name}-files-${token}'
    location: location
    dataAccountName: storage.outputs.dataAccountName
  }
}

module roles 'modules/roles.bicep' = {
  params: {
    appPrincipalId: identity.outputs.principalId
    topicPrincipalId: topic.outputs.principalId
    hostAccountName: storage.outputs.hostAccountName
    dataAccountName: storage.outputs.dataAccountName
    deadLetterContainer: storage.outputs.deadLetterContainer
    insightsName: monitoring.outputs.insightsName
  }
}

module vault 'modules/vault.bicep' = if (useClientSecret) {
  params: {
    name: '${plain}kv${token}'
    location: location
    secret: d365ClientSecret
    appPrincipalId: identity.outputs.principalId
  }
}

module app 'modules/app.bicep' = {
  params: {
    name: '${name}-${token}'
    location: location
    identityName: identity.outputs.name
    hostAccountName: storage.outputs.hostAccountName
    dataAccountName: storage.outputs.dataAccountName
    packageContainer: storage.outputs.packageContainer
    insightsName: monitoring.outputs.insightsName
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    subnetId: privateNetwork ? network!.outputs.appSubnetId : ''
    d365Url: d365Url
    jobsFile: jobsFile
    exportSchedule: exportSchedule
    exportParallelism: exportParallelism
    reconcileSchedule: reconcileSchedule
    d365ClientId: d365ClientId
    d365TenantId: d365TenantId
    d365SecretUri: useClientSecret ? vault!.outputs.secretUri : ''
    extraSettings: extraSettings
  }
  // Before its first start, or the host fails with 403 and starts again only later.
  dependsOn: [roles, endpoints]
}

module code 'modules/code.bicep' = if (!empty(packageUri)) {
  params: {
    appName: app.outputs.name
    packageUri: packageUri
  }
}

module subscription 'modules/subscription.bicep' = if (createEventSubscription) {
  params: {
    topicName: topic.outputs.name
    appName: app.outputs.name
    hostAccountName: storage.outputs.hostAccountName
    dataAccountName: storage.outputs.dataAccountName
    importsContainer: storage.outputs.importsContainer
    deadLetterContainer: storage.outputs.deadLetterContainer
  }
  // Event Grid asks the app for a confirmation, so the code must run, and may dead-letter from then on.
  dependsOn: [code, roles]
}

module alerts 'modules/alerts.bicep' = {
  params: {
    name: name
    location: location
    workspaceId: monitoring.outputs.workspaceId
    topicId: topic.outputs.id
    emails: alertEmails
    actionGroupId: actionGroupId
    silenceMinutes: exportSilenceMinutes
  }
}

module workbook 'modules/workbook.bicep' = {
  params: {
    name: name
    location: location
    workspaceId: monitoring.outputs.workspaceId
  }
}

var clientId = empty(d365ClientId) ? identity.outputs.clientId : d365ClientId

@description('The function app.')
output functionAppName string = app.outputs.name

@description('The storage account in which people drop files and find packages.')
output dataAccountName string = storage.outputs.dataAccountName

@description('The client id that D365 is to know (Microsoft Entra applications, and each job\'s authorization policy).')
output identityClientId string = clientId

@description('Whether dropped files are taken up at once (by events) or by the reconcile timer alone.')
output eventsSubscribed bool = createEventSubscription

@description('For a D365 in another tenant: the federated credential that the app registration needs, in the subscription\'s tenant.')
output federatedCredential object = empty(d365TenantId)
  ? {}
  : {
      issuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
      subject: identity.outputs.principalId
      audience: 'api://AzureADTokenExchange'
    }

@description('What is left to do in D365, in its own words. docs/d365-setup.md says more.')
output nextSteps array = [
  'In ${d365Url}, open System administration > Setup > Microsoft Entra applications, choose New.'
  'Client id: ${clientId}. Name: d365-blob-bridge. User ID: a user who may import and export your entities. Save.'
  'For each job: Data management > the project > Create recurring data job; under Authorization policy add ${clientId} and tick Enabled.'
  'Copy each job\'s ID from System administration > Data management IT > Manage scheduled data jobs into ${jobsFile} and deploy the code again.'
]
