// Where telemetry goes. Entra only: an instrumentation key alone lets nobody write.

@description('Name of the workspace and of the Application Insights component.')
param name string

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Days for which telemetry is kept.')
param keepDays int

resource workspace 'Microsoft.OperationalInsights/workspaces@2026-03-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: keepDays
    features: { disableLocalAuth: true }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: name
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
  }
}

output workspaceId string = workspace.id
