// What wakes somebody up. The queries are in infra/queries; tests/infra runs them over what the app really logs.

@description('Begins the names of the alerts.')
param name string

@description('Region.')
param location string

@description('Tags of every resource.')
param tags object

@description('The Log Analytics workspace.')
param workspaceId string

@description('The system topic.')
param topicId string

@description('E-mail addresses that get the alerts.')
param emails array

@description('An action group that gets them too, or empty.')
param actionGroupId string

@description('Minutes without a run of an export job after which an alert is raised.')
param silenceMinutes int

// Of the longest silence the window sees the whole day after it: it may be up to two days.
var silent = replace(
  replace(loadTextContent('../queries/alert-silent.kql'), 'SILENCE', '${silenceMinutes}m'),
  'GONE',
  '${silenceMinutes + 1440}m'
)

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(emails)) {
  name: '${name}-alerts'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: take(name, 12)
    emailReceivers: [
      for email in emails: {
        name: email
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

var actionGroups = concat(empty(emails) ? [] : [mail.id], empty(actionGroupId) ? [] : [actionGroupId])

// `lasting`: a state, which ends by itself and is told once; the others are told each time they happen.
// `about`: columns of the query that the e-mail names, for it has no rows; each value has an alert of its own.
var rules = [
  {
    name: 'job-silent'
    title: 'An export job has not run'
    description: 'For ${silenceMinutes} minutes none has come to its end. Is the app running, and is the job still in the jobs file?'
    query: silent
    about: ['job']
    severity: 1
    every: 'PT15M'
    over: 'P2D'
    lasting: true
  }
  {
    name: 'file-failed'
    title: 'A file failed, or nobody knows whether D365 has it'
    description: 'It is in imports-failed; the .error.json beside it says what happened and what to do.'
    query: loadTextContent('../queries/alert-files.kql')
    about: ['job', 'file', 'reason']
    severity: 1
    every: 'PT15M'
    over: 'PT1H'
    lasting: false
  }
  {
    name: 'export-failing'
    title: 'An export has failed for a day'
    description: 'D365 deletes a package seven days after the export. The workbook has the error.'
    query: loadTextContent('../queries/alert-export.kql')
    about: ['job', 'correlationId']
    severity: 1
    every: 'PT1H'
    over: 'P2D'
    lasting: true
  }
  {
    name: 'package-unreadable'
    title: 'A package can not be read or unzipped, or an export of a data project failed'
    description: 'The error says what is wrong. What is stored lies in exports as D365 delivered it; what failed is exported at its next due time, or by Run now on the page.'
    query: loadTextContent('../queries/alert-packages.kql')
    about: ['job', 'blob']
    severity: 2
    every: 'PT15M'
    over: 'PT1H'
    lasting: false
  }
  {
    name: 'd365-denied'
    title: 'D365 denies the app access'
    description: '401 or 403: is the client id still registered in D365, and in the job\'s authorization policy?'
    query: loadTextContent('../queries/alert-denied.kql')
    about: ['operation', 'environment']
    severity: 1
    every: 'PT15M'
    over: 'PT1H'
    lasting: false
  }
  {
    name: 'poison'
    title: 'The Functions host gave up a message'
    description: 'Nothing is lost, the file is taken up again; the log says why it failed five times.'
    query: loadTextContent('../queries/alert-poison.kql')
    about: ['queue']
    severity: 2
    every: 'PT15M'
    over: 'PT1H'
    lasting: false
  }
]

resource alerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for rule in rules: {
    name: '${name}-${rule.name}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: '${name}: ${rule.title}'
      description: rule.description
      severity: rule.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: rule.every
      windowSize: rule.over
      criteria: {
        allOf: [
          {
            query: '${loadTextContent('../queries/bridge.kql')}${rule.query}'
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: 0
            dimensions: map(rule.about, column => { name: column, operator: 'Include', values: ['*'] })
          }
        ]
      }
      autoMitigate: rule.lasting
      // A new workspace does not know its tables before the first line arrives.
      skipQueryValidation: true
      actions: { actionGroups: actionGroups }
    }
  }
]

// Events that the app refused or did not take in a day; reconcile finds their files without them.
resource deadLetters 'Microsoft.Insights/metricAlerts@2026-01-01' = {
  name: '${name}-dead-letters'
  location: 'global'
  tags: tags
  properties: {
    description: 'Events of dropped files did not reach the app. Reconcile finds the files; the events lie in dead-letters.'
    severity: 2
    enabled: true
    scopes: [topicId]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT1H'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'dead-lettered'
          metricName: 'DeadLetteredCount'
          timeAggregation: 'Total'
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    autoMitigate: true
    actions: [
      for group in actionGroups: {
        actionGroupId: group
      }
    ]
  }
}
