// For those who cannot let a managed identity into D365: the client secret of an app registration. It is the only
// secret here; the app reads it by a Key Vault reference.

@description('Name of the vault.')
param name string

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('The client secret. Empty: the one that is there stays.')
@secure()
param secret string

@description('When it ends: the date, or date and time, that Entra shows for it.')
param credentialEnds string

@description('The app\'s managed identity.')
param identityName string

var secretName = 'd365-client-secret'
var secretsUser = '4633458b-17de-408a-b874-0445c86b69e6' // Key Vault Secrets User

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = {
  name: identityName
}

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7 // the name is free again after that; the secret can always be made anew
    enablePurgeProtection: true // nobody can make a deleted vault vanish before; recovering it is one command
  }
}

resource clientSecret 'Microsoft.KeyVault/vaults/secrets@2026-02-01' = if (!empty(secret)) {
  parent: vault
  name: secretName
  properties: {
    value: secret
    contentType: 'client secret of an app registration'
    attributes: { exp: dateTimeToEpoch(credentialEnds) } // Key Vault can warn before it
  }
}

// The platform reads the secret as the app's identity when it resolves the app setting AZURE_CLIENT_SECRET.
resource read 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identity.id, secretsUser)
  scope: vault
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsUser)
  }
}

// Without a version: the newest.
output secretUri string = '${vault.properties.vaultUri}secrets/${secretName}'
