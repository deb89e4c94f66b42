// Tells the running app of each file that is dropped. A template of its own, because Event Grid asks the app for a
// confirmation: the code must be deployed, and nothing else may be about to restart the app. infra/subscribe.py wakes
// the app and deploys this; on its own:
//
//   az deployment group create --resource-group GROUP --name bridge-events --template-file infra/events.bicep
//     --parameters functionAppName=… dataAccountName=… topicName=…   (outputs of infra/main.bicep)

targetScope = 'resourceGroup'

import { importsContainer, deadLetterContainer } from 'modules/names.bicep'

@description('The function app, which must be running its code.')
param functionAppName string

@description('The storage account in which files are dropped.')
param dataAccountName string

@description('The system topic of that account.')
param topicName string

// functions/import_file.py
var functionName = 'import_file'

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: functionAppName
}

resource data 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: dataAccountName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: topicName
}

// The Functions host makes this key when the code first runs, and answers only once it is ready. Read, not written:
// a key of our own would be taken before the host runs, and may be refused for its form.
var key = listKeys('${app.id}/host/default', app.apiVersion).systemKeys.blobs_extension

resource subscription 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = {
  parent: topic
  name: 'dropped-files'
  properties: {
    destination: {
      endpointType: 'WebHook'
      properties: {
        endpointUrl: 'https://${app.properties.defaultHostName}/runtime/webhooks/blobs?functionName=Host.Functions.${functionName}&code=${key}'
      }
    }
    eventDeliverySchema: 'EventGridSchema'
    filter: {
      // With the slash at its end: without it, imports-processing would match too.
      subjectBeginsWith: '/blobServices/default/containers/${importsContainer}/'
      // Not BlobRenamed: it has no data.url, by which the Functions host finds the blob; the host answers 500, and
      // Event Grid sends the events that came with it again.
      includedEventTypes: ['Microsoft.Storage.BlobCreated']
      advancedFilters: [
        {
          // These tell of a file that is still empty or half written. Every other operation raises an event, also one
          // that is new: a file without an event would wait for reconcile.
          operatorType: 'StringNotIn'
          key: 'data.api'
          values: ['CreateFile', 'SftpCreate', 'AppendFile']
        }
      ]
    }
    retryPolicy: {
      maxDeliveryAttempts: 30
      eventTimeToLiveInMinutes: 1440
    }
    deadLetterWithResourceIdentity: {
      identity: { type: 'SystemAssigned' }
      deadLetterDestination: {
        endpointType: 'StorageBlob'
        properties: {
          resourceId: data.id
          blobContainerName: deadLetterContainer
        }
      }
    }
  }
}
