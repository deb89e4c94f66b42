// The code, in the same deployment: the platform fetches the zip and builds it for its own Python.

@description('The function app.')
param appName string

@description('Where the zip is; a SAS may be in it.')
@secure()
param packageUri string

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName
}

resource deploy 'Microsoft.Web/sites/extensions@2025-03-01' = {
  parent: app
  name: 'onedeploy'
  #disable-next-line BCP187 // the published type leaves out the properties of onedeploy
  properties: {
    packageUri: packageUri
    remoteBuild: true
  }
}
