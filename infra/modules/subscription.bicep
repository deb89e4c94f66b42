// Tells the app of each file that is dropped. The key in the webhook's address is the app's system key
// `blobs_extension`. The host would make one when the code first runs, which a template can not wait for; so it
// is set here, to the same value in each deployment, and never shows in a parameter or an output.

@description('The system topic of the data account.')
param topicName string

@description('The function app, which must be running its code.')
param appName string

@description('The Functions host\'s account.')
param hostAccountName string

@description('The data account.')
param dataAccountName string

@description('The container in which files are dropped.')
param importsContainer string

@description('The container for events that could not be delivered.')
param deadLetterContainer string

// functions/import_file.py
var functionName = 'import_file'

resource app 'Microsoft.Web/sites@2024-11-01' existing = {
  name: appName
}

resource host 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: hostAccountName
}

resource data 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: dataAccountName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: topicName
}

// An account key opens nothing here (shared key access is off), and is a secret that only those can read who may
// read the app's keys as well: a good seed for a value that must be secret, and the same each time.
var key = guid(host.listKeys().keys[0].value, 'blobs_extension', app.id)

resource systemKey 'Microsoft.Web/sites/host/systemkeys@2021-03-01' = {
  name: '${appName}/default/blobs_extension'
  properties: {
    name: 'blobs_extension'
    value: key
  }
}

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
      includedEventTypes: ['Microsoft.Storage.BlobCreated']
      advancedFilters: [
        {
          // Uploads that are complete. Block by block, CreateFile or AppendFile would tell of half a file.
          operatorType: 'StringIn'
          key: 'data.api'
          values: ['PutBlob', 'PutBlockList', 'CopyBlob', 'FlushWithClose', 'SftpCommit']
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
  dependsOn: [systemKey]
}
