// Two accounts: the data account is what people see, the host account is the Functions host's own (locks, keys,
// the code package). Apart, so that nobody who may drop a file can read the host's keys or change the code.

import { importsContainer, deadLetterContainer, packageContainer } from 'names.bicep'

@description('Name of the Functions host\'s account.')
param hostAccountName string

@description('Name of the account with the containers that people use.')
param dataAccountName string

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('SKU of the host account.')
param hostRedundancy string

@description('SKU of the data account.')
param redundancy string

@description('Files dropped by SFTP, which wants a hierarchical namespace.')
param sftp bool

@description('Whether the data account has a hierarchical namespace.')
param hierarchicalNamespace bool

@description('Days for which deleted blobs and former versions can be brought back.')
param keepDeletedDays int

@description('Days after which succeeded files move to the cool tier; 0 for never.')
param coolSucceededAfterDays int

@description('Days after which succeeded files are deleted; 0 for never.')
param deleteSucceededAfterDays int

@description('Days after which exported packages are deleted; 0 for never.')
param deleteExportsAfterDays int

@description('Days for which the journal of the operating page is kept.')
param keepJournalDays int

@description('Reachable by private endpoints only.')
param private bool

// shared/storage/account.py: CONTAINERS
var exportsContainer = 'exports'
var deliveredContainer = 'exports-delivered'
var containers = [
  exportsContainer
  deliveredContainer
  'state'
  importsContainer
  'imports-processing'
  'imports-succeeded'
  'imports-failed'
  'templates'
]
var succeededContainer = 'imports-succeeded'
// shared/operations/journal.py: JOURNAL
var journalContainer = 'journal'
// shared/storage/account.py: QUEUES. The host makes the poison queues when it first needs them.
var queues = ['import-status', 'notifications', 'export-jobs']

var secure = {
  allowBlobPublicAccess: false
  allowSharedKeyAccess: false // Entra only: no key, no connection string, no account SAS
  isLocalUserEnabled: false
  allowCrossTenantReplication: false
  defaultToOAuthAuthentication: true
  minimumTlsVersion: 'TLS1_2'
  supportsHttpsTrafficOnly: true
  publicNetworkAccess: private ? 'Disabled' : 'Enabled'
  networkAcls: {
    defaultAction: private ? 'Deny' : 'Allow'
    bypass: 'AzureServices' // Event Grid writes its dead letters as a trusted service
  }
}

resource host 'Microsoft.Storage/storageAccounts@2026-04-01' = {
  name: hostAccountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: hostRedundancy }
  properties: secure
}

resource hostBlobs 'Microsoft.Storage/storageAccounts/blobServices@2026-04-01' = {
  parent: host
  name: 'default'
}

resource package 'Microsoft.Storage/storageAccounts/blobServices/containers@2026-04-01' = {
  parent: hostBlobs
  name: packageContainer
}

resource data 'Microsoft.Storage/storageAccounts@2026-04-01' = {
  name: dataAccountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: redundancy }
  properties: union(secure, {
    accessTier: 'Hot'
    isHnsEnabled: hierarchicalNamespace
    isSftpEnabled: sftp
    isLocalUserEnabled: sftp // SFTP knows no other users
  })
}

resource dataBlobs 'Microsoft.Storage/storageAccounts/blobServices@2026-04-01' = {
  parent: data
  name: 'default'
  properties: {
    isVersioningEnabled: !hierarchicalNamespace
    deleteRetentionPolicy: { enabled: true, days: keepDeletedDays }
    containerDeleteRetentionPolicy: { enabled: true, days: keepDeletedDays }
  }
}

resource dataContainers 'Microsoft.Storage/storageAccounts/blobServices/containers@2026-04-01' = [
  for container in concat(containers, [journalContainer, deadLetterContainer]): {
    parent: dataBlobs
    name: container
  }
]

resource dataQueueService 'Microsoft.Storage/storageAccounts/queueServices@2026-04-01' = {
  parent: data
  name: 'default'
}

resource dataQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2026-04-01' = [
  for queue in queues: {
    parent: dataQueueService
    name: queue
  }
]

var formerVersions = {
  name: 'delete-former-versions'
  enabled: true
  type: 'Lifecycle'
  definition: {
    filters: { blobTypes: ['blockBlob', 'appendBlob'] }
    actions: { version: { delete: { daysAfterCreationGreaterThan: keepDeletedDays } } }
  }
}

var succeededFiles = {
  name: 'succeeded-files'
  enabled: true
  type: 'Lifecycle'
  definition: {
    filters: { blobTypes: ['blockBlob'], prefixMatch: ['${succeededContainer}/'] }
    actions: {
      baseBlob: union(
        coolSucceededAfterDays > 0 ? { tierToCool: { daysAfterModificationGreaterThan: coolSucceededAfterDays } } : {},
        deleteSucceededAfterDays > 0 ? { delete: { daysAfterModificationGreaterThan: deleteSucceededAfterDays } } : {}
      )
    }
  }
}

var exportedPackages = {
  name: 'exports'
  enabled: true
  type: 'Lifecycle'
  definition: {
    filters: { blobTypes: ['blockBlob'], prefixMatch: ['${exportsContainer}/'] }
    actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: deleteExportsAfterDays } } }
  }
}

// A blob an hour, to which lines are added; each hour may go on its own.
var journal = {
  name: 'journal'
  enabled: true
  type: 'Lifecycle'
  definition: {
    filters: { blobTypes: ['appendBlob'], prefixMatch: ['${journalContainer}/'] }
    actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: keepJournalDays } } }
  }
}

// Notes on what was delivered. D365 offers nothing again after seven days.
var deliveries = {
  name: 'deliveries'
  enabled: true
  type: 'Lifecycle'
  definition: {
    filters: { blobTypes: ['blockBlob'], prefixMatch: ['${deliveredContainer}/'] }
    actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: 30 } } }
  }
}

// A move leaves the file behind as a former version of where it was: those go after a while, or each file would
// be paid for four times. An account with a hierarchical namespace keeps no versions.
var rules = concat(
  [journal, deliveries],
  hierarchicalNamespace ? [] : [formerVersions],
  coolSucceededAfterDays > 0 || deleteSucceededAfterDays > 0 ? [succeededFiles] : [],
  deleteExportsAfterDays > 0 ? [exportedPackages] : []
)

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2026-04-01' = {
  parent: data
  name: 'default'
  properties: { policy: { rules: rules } }
  dependsOn: [dataBlobs] // versioning must be on before a rule speaks of versions
}
