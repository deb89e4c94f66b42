// Who may do what. Each assignment says which calls need it; tests/infra compares them with the code. Their names
// follow from what is known before the deployment, so that a preview can show them.

import { deadLetterContainer } from 'names.bicep'

@description('The app\'s managed identity.')
param identityName string

@description('The system topic, which has a system-assigned identity.')
param topicName string

@description('The Functions host\'s account.')
param hostAccountName string

@description('The data account.')
param dataAccountName string

@description('The Application Insights component.')
param insightsName string

@description('Whether whoever deploys may read and write the files too.')
param grantDeployerDataAccess bool

// Microsoft Learn, "Azure built-in roles".
var roleIds = {
  blobOwner: 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b' // Storage Blob Data Owner
  blobContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe' // Storage Blob Data Contributor
  queueContributor: '974c5e8b-45b9-4653-ba55-5f855dd0fb88' // Storage Queue Data Contributor
  tableContributor: '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3' // Storage Table Data Contributor
  metricsPublisher: '3913510d-42f4-4e42-8a64-420c390055eb' // Monitoring Metrics Publisher
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = {
  name: identityName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: topicName
}

resource host 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: hostAccountName
}

resource data 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: dataAccountName
}

resource dataBlobs 'Microsoft.Storage/storageAccounts/blobServices@2026-04-01' existing = {
  parent: data
  name: 'default'
}

resource deadLetters 'Microsoft.Storage/storageAccounts/blobServices/containers@2026-04-01' existing = {
  parent: dataBlobs
  name: deadLetterContainer
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

// The host's account: the Functions host, and the platform when it fetches the code package.

// Timer locks, keys, the code package; the host requires Owner for AzureWebJobsStorage.
resource hostBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(host.id, identity.id, roleIds.blobOwner)
  scope: host
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.blobOwner)
  }
}

// The blob trigger turns each event into a message of its own queue (azure-webjobs-blobtrigger-…), which it makes.
resource hostQueues 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(host.id, identity.id, roleIds.queueContributor)
  scope: host
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.queueContributor)
  }
}

// The host writes its diagnostic events (why it did not start) into a table, which the portal shows.
resource hostTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(host.id, identity.id, roleIds.tableContributor)
  scope: host
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.tableContributor)
  }
}

// The data account: the managed identity, also where an app registration stands in for it with D365.

// List, read, stage and commit blocks, copy, lease, set metadata, delete, and sign the address by which D365's storage
// may fetch a package (shared/storage/). Not Owner: nothing here sets owners or permissions, and the Event Grid form of the trigger keeps no receipts here.
resource dataFiles 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(data.id, identity.id, roleIds.blobContributor)
  scope: data
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.blobContributor)
  }
}

// Send, receive, delete (ours); prolong a message and make the poison queues (the host). The narrower Message
// Processor and Message Sender together can neither prolong a message nor make a queue.
resource dataMessages 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(data.id, identity.id, roleIds.queueContributor)
  scope: data
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.queueContributor)
  }
}

// Telemetry: the component takes none without Entra (APPLICATIONINSIGHTS_AUTHENTICATION_STRING).
resource telemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, identity.id, roleIds.metricsPublisher)
  scope: insights
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.metricsPublisher)
  }
}

// Event Grid writes the events that it could not deliver: into that container and no other.
resource topicDeadLetters 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(deadLetters.id, topic.id, roleIds.blobContributor)
  scope: deadLetters
  properties: {
    principalId: topic.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.blobContributor)
  }
}

// On request, so that the first file can be dropped at once. A user or a service principal: Azure finds out which.
resource deployerFiles 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (grantDeployerDataAccess) {
  name: guid(data.id, deployer().objectId, roleIds.blobContributor)
  scope: data
  properties: {
    principalId: deployer().objectId
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.blobContributor)
  }
}
