// Optional: the services of a storage account inside the virtual network, under their usual names.

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('The storage account.')
param accountName string

@description('Its services.')
param services array

@description('The subnet for private endpoints.')
param subnetId string

@description('Resource id of the group with the private DNS zones; empty where a policy of yours adds the records.')
param zonesGroupId string

resource account 'Microsoft.Storage/storageAccounts@2026-04-01' existing = {
  name: accountName
}

resource endpoints 'Microsoft.Network/privateEndpoints@2026-03-01' = [
  for service in services: {
    name: '${accountName}-${service}'
    location: location
    tags: tags
    properties: {
      subnet: { id: subnetId }
      privateLinkServiceConnections: [
        {
          name: service
          properties: {
            privateLinkServiceId: account.id
            groupIds: [service]
          }
        }
      ]
    }
  }
]

resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2026-03-01' = [
  for (service, i) in services: if (!empty(zonesGroupId)) {
    parent: endpoints[i]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: service
          properties: {
            privateDnsZoneId: '${zonesGroupId}/providers/Microsoft.Network/privateDnsZones/privatelink.${service}.${environment().suffixes.storage}'
          }
        }
      ]
    }
  }
]
