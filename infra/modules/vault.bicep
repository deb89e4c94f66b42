// For those who cannot let a managed identity into D365: the client secret of an app registration. It is the only
// secret here; the app reads it by a Key Vault reference.

@description('Name of the vault.')
param name string

@description('Region.')
param location string

@description('The client secret. Empty: the one that is there stays.')
@secure()
param secret string

@description('Principal id of the app\'s managed identity.')
param appPrincipalId string

var secretName = 'd365-client-secret'
var secretsUser = '4633458b-17de-408a-b874-0445c86b69e6' // Key Vault Secrets User

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7 // the name is free again after that; the secret can always be made anew
  }
}

resource clientSecret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (!empty(secret)) {
  parent: vault
  name: secretName
  properties: { value: secret }
}

// The platform reads the secret as the app's identity when it resolves the app setting AZURE_CLIENT_SECRET.
resource read 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, appPrincipalId, secretsUser)
  scope: vault
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsUser)
  }
}

// Without a version: the newest.
output secretUri string = '${vault.properties.vaultUri}secrets/${secretName}'
