// Binds KQL queries against tables, with Microsoft's own parser: a line of JSON in, a line of JSON out.
//
//   in:  {"query": "…", "tables": {"AppTraces": "(Message: string, …)"}}
//   out: {"mistakes": ["…"], "columns": ["…"]}   columns: what the query answers with
'use strict'

const folder = `${__dirname}/../../node_modules/@kusto/language-service-next/`
require(`${folder}bridge.min.js`)
require(`${folder}Kusto.Language.Bridge.min.js`)
const { GlobalState, KustoCode, Symbols } = Kusto.Language

function items (list) {
  return Array.from({ length: list ? list.Count : 0 }, (_, i) => list.getItem(i))
}

function bind ({ query, tables }) {
  const symbols = Object.entries(tables)
    .map(([name, columns]) => Symbols.TableSymbol.From(columns).WithName(name))
  const database = new Symbols.DatabaseSymbol.ctor('workspace', symbols)
  const code = KustoCode.ParseAndAnalyze(query, GlobalState.Default.WithDatabase(database))
  const mistakes = items(code.GetDiagnostics())
    .map(each => `${each.Code}: ${each.Message} (at ${JSON.stringify(query.substr(each.Start, 30))})`)
  return { mistakes, columns: items(code.ResultType && code.ResultType.Columns).map(each => each.Name) }
}

require('readline').createInterface({ input: process.stdin })
  .on('line', line => process.stdout.write(`${JSON.stringify(bind(JSON.parse(line)))}\n`))
