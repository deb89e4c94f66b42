// Names and facts that more than one file needs.

@description('Where people drop files.')
@export()
var importsContainer = 'imports'

@description('Events that could not be delivered; the app does not touch it.')
@export()
var deadLetterContainer = 'dead-letters'

@description('The code package, in the host account.')
@export()
var packageContainer = 'code'

// Microsoft Learn, "Azure regions list". A region that is not here gets locally redundant storage: always accepted.
var zonalRegions = [
  'australiaeast'
  'austriaeast'
  'belgiumcentral'
  'brazilsouth'
  'canadacentral'
  'centralindia'
  'centralus'
  'chilecentral'
  'eastasia'
  'eastus'
  'eastus2'
  'francecentral'
  'germanywestcentral'
  'indonesiacentral'
  'israelcentral'
  'italynorth'
  'japaneast'
  'japanwest'
  'koreacentral'
  'malaysiawest'
  'mexicocentral'
  'newzealandnorth'
  'northeurope'
  'norwayeast'
  'polandcentral'
  'qatarcentral'
  'southafricanorth'
  'southcentralus'
  'southeastasia'
  'spaincentral'
  'swedencentral'
  'switzerlandnorth'
  'uaenorth'
  'uksouth'
  'westeurope'
  'westus2'
  'westus3'
]

@description('Whether storage can keep its copies in three zones of a region, by the region\'s short or long name.')
@export()
func hasZones(region string) bool => contains(zonalRegions, toLower(replace(region, ' ', '')))
