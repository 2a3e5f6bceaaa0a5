// Compositions, compiled and deployed by openwhisk-composer and run by the server.
// Usage: node compositions.js URL KEY [REDIS].  Exits with 1, naming the step, when one differs.
// With the URL of a Redis, where the branches of parallel ones meet, it runs those.
'use strict'
const assert = require('node:assert')
const composer = require('openwhisk-composer')
const client = require('openwhisk-composer/client')

const [url, key, redis] = process.argv.slice(2)
const ow = client({ apihost: url, api_key: key }, true)

const withoutRedis = {
  'parallel without branches': [
    composer.sequence(composer.parallel(), args => ({ n: args.value.length })),
    { n: 1 }, { n: 0 }
  ],
  'map of nothing': [
    composer.map('inc'),
    { value: [] }, { value: [] }
  ],
  'parallel with branches, which says what it lacks': [
    composer.parallel('inc', 'double'),
    { n: 1 }, { error: 'Parallel combinator requires a properly configured redis instance' }
  ],
  sequence: [
    composer.sequence('inc', 'inc', 'double'),
    { n: 1 }, { n: 6 }
  ],
  if: [
    composer.if('isEven', 'double', 'inc'),
    { n: 3 }, { n: 4 }
  ],
  'if, the other way': [
    composer.if('isEven', 'double', 'inc'),
    { n: 4 }, { n: 8 }
  ],
  while: [
    composer.while('isSmall', 'double'),
    { n: 1 }, { n: 16 }
  ],
  'try and catch': [
    composer.try('fails', args => ({ caught: args.error })),
    {}, { caught: 'on purpose' }
  ],
  'a function in line': [
    composer.sequence('inc', args => ({ n: args.n * 10 })),
    { n: 1 }, { n: 20 }
  ],
  'retain and let': [
    composer.let({ kept: 5 }, composer.sequence('inc', args => ({ n: args.n + kept }))), // eslint-disable-line no-undef
    { n: 1 }, { n: 7 }
  ],
  repeat: [
    composer.repeat(3, 'inc'),
    { n: 0 }, { n: 3 }
  ],
  retry: [
    composer.sequence(composer.try(composer.retry(2, 'fails'), () => ({ n: 0 })), 'inc'),
    {}, { n: 1 }
  ]
}

const withRedis = {
  parallel: [
    composer.parallel('inc', 'double', composer.sequence('inc', 'double')),
    { n: 5 }, { value: [{ n: 6 }, { n: 10 }, { n: 12 }] }
  ],
  map: [
    composer.map(composer.if('isEven', 'double', 'inc')),
    { value: [{ n: 1 }, { n: 2 }, { n: 3 }] }, { value: [{ n: 2 }, { n: 4 }, { n: 4 }] }
  ],
  'parallel in parallel': [
    composer.parallel(composer.parallel('inc', 'inc'), 'double'),
    { n: 1 }, { value: [{ value: [{ n: 2 }, { n: 2 }] }, { n: 2 }] }
  ],
  'a branch that fails': [
    composer.parallel('inc', 'fails'),
    { n: 1 }, { value: [{ n: 2 }, { error: 'on purpose' }] }
  ]
}

const ACTIONS = {
  inc: 'def main(args):\n    return {"n": args["n"] + 1}\n',
  double: 'def main(args):\n    return {"n": args["n"] * 2}\n',
  isEven: 'def main(args):\n    return {"value": args["n"] % 2 == 0}\n',
  isSmall: 'def main(args):\n    return {"value": args["n"] < 10}\n',
  fails: 'def main(args):\n    return {"error": "on purpose"}\n'
}

async function main () {
  for (const [name, action] of Object.entries(ACTIONS)) {
    await ow.actions.update({ name, action, kind: 'python:3' })
  }
  const compositions = redis ? withRedis : withoutRedis
  const where = redis ? { $composer: { redis: { uri: redis } } } : {}
  for (const [name, [composition, given, expected]] of Object.entries(compositions)) {
    try {
      const params = { ...given, ...where }
      await ow.compositions.deploy(Object.assign({ name: 'composed' }, composition.compile()), true)
      const record = await ow.actions.invoke({ name: 'composed', blocking: true, params })
        .catch(refusal => refusal.error) // one that ends in an error, which is its result
      assert.deepStrictEqual(record.response.result, expected)
      console.log(`${name}: ok`)
    } catch (error) {
      console.error(`${name}: ${error.stack} ${JSON.stringify(error.error)}`)
      process.exitCode = 1
      return
    }
  }
}

main()
