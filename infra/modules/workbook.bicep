// What people look at: Azure Monitor > Workbooks. The queries are in infra/queries.

@description('Begins the name that people see.')
param name string

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('The Log Analytics workspace.')
param workspaceId string

var bridge = loadTextContent('../queries/bridge.kql')

var charts = [
  {
    title: 'Files, by job and outcome'
    query: loadTextContent('../queries/files.kql')
    shape: 'barchart'
  }
  {
    title: 'Packages, by job and outcome'
    query: loadTextContent('../queries/packages.kql')
    shape: 'barchart'
  }
  {
    title: 'Jobs'
    query: loadTextContent('../queries/jobs.kql')
    shape: 'table'
  }
  {
    title: 'Seconds from the drop of a file to its end in D365'
    query: loadTextContent('../queries/latency.kql')
    shape: 'linechart'
  }
  {
    title: 'Failures and their reasons'
    query: loadTextContent('../queries/failures.kql')
    shape: 'table'
  }
  {
    title: 'Retries, denials and waits'
    query: loadTextContent('../queries/trouble.kql')
    shape: 'barchart'
  }
]

var timeRange = {
  type: 9 // parameters
  name: 'time'
  content: {
    version: 'KqlParameterItem/1.0'
    parameters: [
      {
        id: guid(workspaceId, 'time')
        version: 'KqlParameterItem/1.0'
        name: 'Time'
        type: 4 // a time range
        value: { durationMs: 604800000 }
        typeSettings: {
          selectableValues: [{ durationMs: 86400000 }, { durationMs: 604800000 }, { durationMs: 2592000000 }]
          allowCustom: true
        }
      }
    ]
    style: 'pills'
    queryType: 0
    resourceType: 'microsoft.operationalinsights/workspaces'
  }
}

var items = map(charts, chart => {
  type: 3 // a query
  name: chart.title
  content: {
    version: 'KqlItem/1.0'
    query: '${bridge}${chart.query}'
    size: 0
    title: chart.title
    timeContextFromParameter: 'Time'
    queryType: 0
    resourceType: 'microsoft.operationalinsights/workspaces'
    visualization: chart.shape
  }
})

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, name, 'workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: '${name}: files and packages'
    category: 'workbook'
    sourceId: workspaceId
    serializedData: string({
      version: 'Notebook/1.0'
      items: concat([timeRange], items)
      fallbackResourceIds: [workspaceId]
      '$schema': 'https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json'
    })
  }
}
