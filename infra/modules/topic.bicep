// Events of the data account. The topic exists from the start; who gets its events is infra/events.bicep.

@description('Name of the system topic.')
param name string

@description('Region: that of the data account.')
param location string

@description('Tags of every resource.')
param tags object

@description('The data account.')
param dataAccountName string

resource data 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: dataAccountName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: name
  location: location
  tags: tags
  identity: { type: 'SystemAssigned' } // with which it writes dead letters
  properties: {
    source: data.id
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}
