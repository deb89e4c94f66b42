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

// Microsoft Learn, "List of Azure regions that support zone-redundant storage (ZRS)", as far as it was at hand: newer
// regions are missing. One that is not here gets locally redundant storage, which every region takes.
var zonalRegions = [
  'australiaeast'
  'brazilsouth'
  'canadacentral'
  'centralindia'
  'centralus'
  'eastasia'
  'eastus'
  'eastus2'
  'francecentral'
  'germanywestcentral'
  'israelcentral'
  'italynorth'
  'japaneast'
  'koreacentral'
  'northeurope'
  'norwayeast'
  'polandcentral'
  'qatarcentral'
  'southafricanorth'
  'southcentralus'
  'southeastasia'
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
