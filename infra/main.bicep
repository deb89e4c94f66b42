// d365-blob-bridge: everything it runs on, in one resource group.
//
//   az deployment group create --resource-group GROUP --parameters infra/main.bicepparam
//   azd up
//
// docs/deploy.md goes through it step by step. Nothing here holds a secret: the app reaches storage, Application
// Insights and D365 as its managed identity. Once the code runs, events.bicep subscribes it to the events of dropped
// files.

targetScope = 'resourceGroup'

import { hasZones } from 'modules/names.bicep'

@description('Begins the names of all resources: letters, digits and hyphens.')
@minLength(3)
@maxLength(24)
param name string = 'bridge'

@description('The region, or empty for the resource group\'s. Flex Consumption must be offered there: az functionapp list-flexconsumption-locations.')
param location string = ''

@description('Tags of every resource.')
param tags object = {}

@description('The D365 environment: https:// and its host, without a path. Empty where the jobs file names the environments.')
param d365Url string = ''

@description('Whether the jobs file names the environments, one or several.')
param d365InJobsFile bool = false

@description('The jobs file, relative to the root of the code package.')
param jobsFile string = 'jobs.json'

@description('When export queues are asked: NCRONTAB with six fields, in UTC.')
param exportSchedule string = '0 */5 * * * *'

@description('How many packages are exported side by side, over all jobs of an environment (1 to 52). D365 limits the requests of an application.')
@minValue(1)
@maxValue(52)
param exportParallelism int = 8

@description('When files that an event or a message missed are looked for: NCRONTAB with six fields, in UTC.')
param reconcileSchedule string = '30 */5 * * * *'

@description('Memory of an instance in MB. Files are streamed, so their size does not matter; a quarter costs a quarter.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('The most instances at a time. D365 limits its callers; more instances do not make it faster. Below 40 not in every region.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Instances that are kept ready for dropped files, so that the first after a pause does not wait for a start. Each is paid for all the time.')
@minValue(0)
@maxValue(100)
param alwaysReadyInstances int = 0

@description('Instances of the app in more than one zone. Not in every region: az functionapp list-flexconsumption-locations --zone-redundant.')
param zoneRedundant bool = false

@description('URL of a zip with the code, which Azure fetches and builds. Empty: azd or the CLI deploys the code.')
@secure()
param packageUri string = ''

@description('How the data account keeps its copies: within a building, across zones, across regions, or both. Across zones where the region has them.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param dataRedundancy string = hasZones(empty(location) ? resourceGroup().location : location)
  ? 'Standard_ZRS'
  : 'Standard_LRS'

@description('The same for the host account, which has the code package, keys and locks. A zone-redundant app wants it across zones.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param hostRedundancy string = zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS'

@description('SFTP to the data account, by local users that you make. It wants a hierarchical namespace, and costs by the hour.')
param sftp bool = false

@description('A hierarchical namespace in the data account. It can not be changed later, and rules out versioning.')
param hierarchicalNamespace bool = sftp

@description('Name of the data account\'s system topic, in this resource group, where it has one already: it can have one only. It needs a system-assigned identity.')
param eventTopicName string = ''

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

@description('Days after which exported packages are deleted; 0 for never.')
@minValue(0)
param deleteExportsAfterDays int = 0

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

@description('Resource id of a subnet of yours for the app, delegated to Microsoft.App/environments, in place of a new network.')
param appSubnetId string = ''

@description('Resource id of a subnet of yours for the private endpoints, in place of a new network.')
param endpointsSubnetId string = ''

@description('Resource id of the group with your private DNS zones (privatelink.blob…, queue, table). Empty, with subnets of yours: a policy of yours adds the records.')
param privateDnsGroupId string = ''

@description('Whether whoever deploys may read and write the files too, with the role Storage Blob Data Contributor.')
param grantDeployerDataAccess bool = false

@description('Client id of an app registration for D365, in place of the app\'s identity itself, or empty. It is one of the subscription\'s tenant and trusts the identity by the output federatedCredential, so it needs no secret.')
param d365ClientId string = ''

@description('The tenant of D365, where that is not the subscription\'s, or empty. The registration is then a multi-tenant one.')
param d365TenantId string = ''

@description('App settings of your own, beside those that the app needs: a name and a value each.')
@secure()
param extraSettings object = {}

// A mistake in the parameters stops a deployment before it makes anything. That D365_URL is missing is said in Azure
// alone, where environment() has a value: azd looks at the template before it hands over its values, and would leave
// out its own checks.
var d365 = !empty(d365Url) || d365InJobsFile || empty(environment().name)
  ? d365Url
  : fail('d365Url is empty: set D365_URL to your environment, https://….dynamics.com, or D365_IN_JOBS_FILE to true')
var namespace = sftp && !hierarchicalNamespace
  ? fail('sftp wants hierarchicalNamespace, which can not be changed later')
  : hierarchicalNamespace
var d365Tenant = empty(d365TenantId)
  ? tenant().tenantId
  : !empty(d365ClientId)
      ? d365TenantId
      : fail('d365TenantId wants d365ClientId: another tenant does not know the app\'s identity')
var subnetsGiven = empty(endpointsSubnetId) || !empty(appSubnetId)
  ? !empty(endpointsSubnetId)
  : fail('endpointsSubnetId wants appSubnetId: the app reaches storage by that network')

var region = empty(location) ? resourceGroup().location : location
var token = uniqueString(resourceGroup().id, name)
var plain = take(toLower(replace(name, '-', '')), 7)

// All names, here: a preview (what-if) can't look past a name that a module has yet to answer with.
var appName = '${name}-${token}'
var identityName = '${name}-id-${token}'
var insightsName = '${name}-${token}'
var networkName = '${name}-net-${token}'
var topicName = empty(eventTopicName) ? '${name}-files-${token}' : eventTopicName
var hostAccountName = '${plain}host${token}'
var dataAccountName = '${plain}data${token}'

// What has a private endpoint: what is used of each account, and how tools for a hierarchical namespace speak to it.
var hostServices = ['blob', 'queue', 'table']
var dataServices = namespace ? ['blob', 'queue', 'dfs'] : ['blob', 'queue']
var newNetwork = privateNetwork && !subnetsGiven

module identity 'modules/identity.bicep' = {
  params: {
    name: identityName
    location: region
    tags: tags
  }
}

module network 'modules/network.bicep' = if (newNetwork) {
  params: {
    name: networkName
    location: region
    tags: tags
    prefix: networkPrefix
    services: union(hostServices, dataServices)
  }
}

module storage 'modules/storage.bicep' = {
  params: {
    hostAccountName: hostAccountName
    dataAccountName: dataAccountName
    location: region
    tags: tags
    hostRedundancy: hostRedundancy
    redundancy: dataRedundancy
    sftp: sftp
    hierarchicalNamespace: namespace
    keepDeletedDays: keepDeletedDays
    coolSucceededAfterDays: coolSucceededAfterDays
    deleteSucceededAfterDays: deleteSucceededAfterDays
    deleteExportsAfterDays: deleteExportsAfterDays
    keepJournalDays: keepJournalDays
    private: privateNetwork
  }
}

module endpoints 'modules/endpoints.bicep' = [
  for account in [
    { name: hostAccountName, services: hostServices }
    { name: dataAccountName, services: dataServices }
  ]: if (privateNetwork) {
    params: {
      location: region
      tags: tags
      accountName: account.name
      services: account.services
      subnetId: newNetwork ? network!.outputs.endpointsSubnetId : endpointsSubnetId
      zonesGroupId: newNetwork ? resourceGroup().id : privateDnsGroupId
    }
    dependsOn: [storage]
  }
]

module monitoring 'modules/monitoring.bicep' = {
  params: {
    name: insightsName
    location: region
    tags: tags
    keepDays: keepTelemetryDays
  }
}

module topic 'modules/topic.bicep' = if (empty(eventTopicName)) {
  params: {
    name: topicName
    location: region
    tags: tags
    dataAccountName: dataAccountName
  }
  dependsOn: [storage]
}

module roles 'modules/roles.bicep' = {
  params: {
    identityName: identityName
    topicName: topicName
    hostAccountName: hostAccountName
    dataAccountName: dataAccountName
    insightsName: insightsName
    grantDeployerDataAccess: grantDeployerDataAccess
  }
  dependsOn: [identity, topic, storage, monitoring]
}

module app 'modules/app.bicep' = {
  params: {
    name: appName
    location: region
    tags: tags
    identityName: identityName
    hostAccountName: hostAccountName
    dataAccountName: dataAccountName
    insightsName: insightsName
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    alwaysReadyInstances: alwaysReadyInstances
    zoneRedundant: zoneRedundant
    subnetId: newNetwork ? network!.outputs.appSubnetId : appSubnetId
    d365Url: d365
    jobsFile: jobsFile
    exportSchedule: exportSchedule
    exportParallelism: exportParallelism
    reconcileSchedule: reconcileSchedule
    d365ClientId: d365ClientId
    d365TenantId: d365Tenant
    extraSettings: extraSettings
  }
  // Roles before its first start, or the host fails with 403 and starts again only later.
  dependsOn: [identity, storage, monitoring, roles, endpoints]
}

module code 'modules/code.bicep' = if (!empty(packageUri)) {
  params: {
    appName: appName
    packageUri: packageUri
  }
  dependsOn: [app]
}

module alerts 'modules/alerts.bicep' = {
  params: {
    name: name
    location: region
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    topicId: resourceId('Microsoft.EventGrid/systemTopics', topicName)
    emails: alertEmails
    actionGroupId: actionGroupId
    silenceMinutes: exportSilenceMinutes
  }
  dependsOn: [topic]
}

module workbook 'modules/workbook.bicep' = {
  params: {
    name: name
    location: region
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
  }
}

var clientId = empty(d365ClientId) ? identity.outputs.clientId : d365ClientId

@description('The function app.')
output functionAppName string = appName

@description('The storage account in which people drop files and find packages.')
output dataAccountName string = dataAccountName

@description('Its system topic, which events.bicep subscribes the app to.')
output topicName string = topicName

@description('The client id that D365 is to know (Microsoft Entra applications, and each job\'s authorization policy).')
output identityClientId string = clientId

@description('What makes an app registration trust the app\'s identity: az ad app federated-credential create takes it as it is.')
output federatedCredential object = {
  name: 'd365-blob-bridge'
  issuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
  subject: identity.outputs.principalId
  audiences: ['api://AzureADTokenExchange']
}

@description('What is left to do in D365, in its own words, one step a line. docs/d365-setup.md says more.')
output nextSteps string = join(
  [
    ...(empty(d365ClientId)
      ? []
      : ['Let the app registration ${clientId} trust the app\'s identity: docs/deploy.md, step 5.'])
    ...(d365InJobsFile
      ? [
          'So too each app registration that ${jobsFile} names (clientId); its environment is to know that one, not ${clientId}.'
        ]
      : [])
    'In ${d365InJobsFile ? 'each environment of ${jobsFile}' : d365}, open System administration > Setup > Microsoft Entra applications, choose New.'
    'Client id: ${clientId}. Name: d365-blob-bridge. User ID: a user who may import and export your entities. Save.'
    'For each job: Data management > the project > Create recurring data job; under Authorization policy add ${clientId} and tick Enabled.'
    'Copy each job\'s ID from System administration > Data management IT > Manage scheduled data jobs into ${jobsFile} and deploy the code again.'
  ],
  '\n'
)
