// The function app on its Flex Consumption plan.

import { packageContainer } from 'names.bicep'

@description('Name of the app and of its plan.')
param name string

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('The managed identity that the app runs as.')
param identityName string

@description('The Functions host\'s account.')
param hostAccountName string

@description('The data account.')
param dataAccountName string

@description('The Application Insights component.')
param insightsName string

@description('Memory of an instance in MB.')
param instanceMemoryMB int

@description('The most instances at a time.')
param maximumInstanceCount int

@description('Instances that are kept ready for events of dropped files.')
param alwaysReadyInstances int

@description('Instances in more than one zone.')
param zoneRedundant bool

@description('Subnet of the app, or empty.')
param subnetId string

@description('The D365 environment, or empty where the jobs file names the environments.')
param d365Url string

@description('The jobs file.')
param jobsFile string

@description('When export queues are asked.')
param exportSchedule string

@description('How many packages are exported side by side, over all jobs.')
param exportParallelism int

@description('When missed files are looked for.')
param reconcileSchedule string

@description('Client id of an app registration to use for D365, or empty.')
param d365ClientId string

@description('The tenant of D365.')
param d365TenantId string

@description('App settings beside those below.')
@secure()
param extraSettings object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = {
  name: identityName
}

resource host 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: hostAccountName
}

resource data 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: dataAccountName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: name
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { tier: 'FlexConsumption', name: 'FC1' }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': 'app' }) // azure.yaml: where azd deploys the code
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identity.id}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: 'Enabled' // Event Grid delivers to a public address only
    keyVaultReferenceIdentity: identity.id // for app settings of your own that refer to a vault of yours
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    // Flex Consumption refuses a deployment with ftpsState and others (tests/infra has the list). FTP is off by the
    // policies below. No healthCheckPath either: the platform has no health check for this plan, and one would keep
    // an instance awake; an app that does not run raises the alert job-silent.
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      http20Enabled: true
    }
    functionAppConfig: {
      runtime: { name: 'python', version: '3.13' }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        // `blob`: all blob triggers together, which is import_file
        alwaysReady: alwaysReadyInstances > 0 ? [{ name: 'blob', instanceCount: alwaysReadyInstances }] : []
      }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${host.properties.primaryEndpoints.blob}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identity.id
          }
        }
      }
    }
  }
}

// Passwords for FTP and for the deployment site, both off: deployment goes by Entra.
resource noFtpPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'ftp'
  properties: { allow: false }
}

resource noScmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'scm'
  properties: { allow: false }
}

// A deployment writes all app settings at once, so those that were made elsewhere (the secret of a sign-in, say) are
// read first. By then the app exists, in its first deployment too, which finds none.
var otherSettings = list('${app.id}/config/appsettings', app.apiVersion).properties

resource settings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: app
  name: 'appsettings'
  properties: union(
    otherSettings,
    {
      // The product's own: shared/config/settings.py
      D365_URL: d365Url
      JOBS_FILE: jobsFile
      EXPORT_SCHEDULE: exportSchedule
      EXPORT_PARALLELISM: string(exportParallelism)
      RECONCILE_SCHEDULE: reconcileSchedule

      // The data account: the triggers' connection, which our own clients read too
      DataStorage__blobServiceUri: data.properties.primaryEndpoints.blob
      DataStorage__queueServiceUri: data.properties.primaryEndpoints.queue
      DataStorage__credential: 'managedidentity'
      DataStorage__clientId: identity.properties.clientId

      // For D365: which managed identity (azure-identity), and the app registration that trusts it
      AZURE_CLIENT_ID: identity.properties.clientId
      D365_CLIENT_ID: d365ClientId
      D365_TENANT_ID: empty(d365ClientId) ? '' : d365TenantId

      // The Functions host's own. With the account's name beside its addresses: with the addresses alone, hosts were
      // now and then unhealthy and refused webhooks (azure-functions-host issues 11782 and 11787).
      AzureWebJobsStorage__accountName: host.name
      AzureWebJobsStorage__blobServiceUri: host.properties.primaryEndpoints.blob
      AzureWebJobsStorage__queueServiceUri: host.properties.primaryEndpoints.queue
      AzureWebJobsStorage__tableServiceUri: host.properties.primaryEndpoints.table
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identity.properties.clientId
      APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identity.properties.clientId};Authorization=AAD'
      // Nothing that is read at process start: a worker is older than its settings here, so that threads
      // (PYTHON_THREADPOOL_THREAD_COUNT) and allocator (MALLOC_...) are what host.json and shared/allocator.py say
    },
    extraSettings
  )
}
