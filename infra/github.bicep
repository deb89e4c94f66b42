// What GitHub deploys as: an identity that trusts the jobs of one GitHub environment, so that no secret is kept there.
//
//   az deployment group create --resource-group GROUP --template-file infra/github.bicep --parameters repository=OWNER/NAME
//
// docs/deploy.md, "From GitHub", has the rest. It is deployed once, by a person who may assign roles.

@description('The repository: OWNER/NAME.')
param repository string

@description('The GitHub environment whose jobs may deploy.')
param environmentName string = 'production'

@description('Name of the identity.')
param name string = 'github-deploy'

@description('Region.')
param location string = resourceGroup().location

// Microsoft Learn, "Azure built-in roles".
var contributor = 'b24988ac-6180-42a0-ab88-20f7382dd24c' // Contributor
var accessAdministrator = 'f58310d9-a9f6-439a-9e8d-f62e7b41a168' // Role Based Access Control Administrator

// The roles that the deployment assigns, and no others: whoever takes the workflow over can make nobody an owner.
var assigned = [
  'b7e6dc6d-f1e8-4753-8033-0f276bb0955b' // Storage Blob Data Owner
  'ba92f5b4-2d11-453d-a403-e96b0029c9fe' // Storage Blob Data Contributor
  '974c5e8b-45b9-4653-ba55-5f855dd0fb88' // Storage Queue Data Contributor
  '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3' // Storage Table Data Contributor
  '3913510d-42f4-4e42-8a64-420c390055eb' // Monitoring Metrics Publisher
]

// Microsoft Learn, "Examples to delegate Azure role assignment management with conditions", Constrain roles and
// principal types: a new assignment is in the request, one to be deleted is the resource.
var only = join(
  map(
    [
      { action: 'write', source: 'Request' }
      { action: 'delete', source: 'Resource' }
    ],
    each =>
      '((!(ActionMatches{\'Microsoft.Authorization/roleAssignments/${each.action}\'})) OR (@${each.source}[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {${join(assigned, ', ')}} AND @${each.source}[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {\'ServicePrincipal\'}))'
  ),
  ' AND '
)

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
}

resource trust 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = {
  parent: identity
  name: 'github'
  properties: {
    issuer: 'https://token.actions.githubusercontent.com'
    subject: 'repo:${repository}:environment:${environmentName}'
    audiences: ['api://AzureADTokenExchange']
  }
}

resource deploys 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, identity.id, contributor)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', contributor)
  }
}

resource assigns 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, identity.id, accessAdministrator)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', accessAdministrator)
    condition: only
    conditionVersion: '2.0'
  }
}

@description('The variables of the GitHub environment.')
output variables object = {
  AZURE_CLIENT_ID: identity.properties.clientId
  AZURE_TENANT_ID: tenant().tenantId
  AZURE_SUBSCRIPTION_ID: subscription().subscriptionId
  AZURE_RESOURCE_GROUP: resourceGroup().name
  AZURE_LOCATION: resourceGroup().location
}
