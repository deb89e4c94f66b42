// Optional: both storage accounts inside the virtual network, under their usual names.

@description('Region.')
param location string

@description('The virtual network.')
param networkName string

@description('The storage accounts.')
param accountNames array

var services = ['blob', 'queue', 'table']

resource network 'Microsoft.Network/virtualNetworks@2024-07-01' existing = {
  name: networkName
}

resource accounts 'Microsoft.Storage/storageAccounts@2025-01-01' existing = [
  for account in accountNames: {
    name: account
  }
]

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for service in services: {
    name: 'privatelink.${service}.${environment().suffixes.storage}'
    location: 'global'
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (service, i) in services: {
    parent: zones[i]
    name: networkName
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: network.id }
    }
  }
]

// Each service of each account.
resource endpoints 'Microsoft.Network/privateEndpoints@2024-07-01' = [
  for i in range(0, length(accountNames) * length(services)): {
    name: '${accountNames[i / length(services)]}-${services[i % length(services)]}'
    location: location
    properties: {
      subnet: { id: '${network.id}/subnets/endpoints' }
      privateLinkServiceConnections: [
        {
          name: services[i % length(services)]
          properties: {
            privateLinkServiceId: accounts[i / length(services)].id
            groupIds: [services[i % length(services)]]
          }
        }
      ]
    }
  }
]

resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-07-01' = [
  for i in range(0, length(accountNames) * length(services)): {
    parent: endpoints[i]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: services[i % length(services)]
          properties: { privateDnsZoneId: zones[i % length(services)].id }
        }
      ]
    }
  }
]
