// Every route that the official client has, with what it then shows its user.
// Usage: node openwhisk_client.js URL KEY.  Exits with 1, naming the step, when one differs.
'use strict'
const assert = require('node:assert')
const openwhisk = require('openwhisk')

const [url, key] = process.argv.slice(2)
const ow = openwhisk({ apihost: url, api_key: key })
const CODE = 'def main(args):\n    print("said", args)\n    return {"got": args}\n'
const FAILS = 'def main(args):\n    return {"error": "on purpose"}\n'
const kind = 'python:3'

const steps = {
  async namespaces () {
    assert.deepStrictEqual(await ow.namespaces.list(), ['guest'])
  },

  async actions () {
    const made = await ow.actions.create({
      name: 'hello', action: CODE, kind, params: { a: 1 }, annotations: { note: 'x' }, limits: { timeout: 9000 }
    })
    assert.strictEqual(made.version, '0.0.1')
    assert.strictEqual(made.exec.code, CODE)
    await assert.rejects(ow.actions.create({ name: 'hello', action: CODE, kind }), { statusCode: 409 })
    const updated = await ow.actions.update({ name: 'hello', action: CODE, kind, params: { a: 1 } })
    assert.strictEqual(updated.version, '0.0.2')
    assert.strictEqual(updated.limits.timeout, 9000)
    assert.deepStrictEqual((await ow.actions.list()).map(each => each.name), ['hello'])
    assert.deepStrictEqual(await ow.actions.list({ skip: 1, limit: 1 }), [])
    assert.strictEqual((await ow.actions.list({ count: true })).actions, 1)
    assert.strictEqual((await ow.actions.get('hello')).exec.code, CODE)
    assert.strictEqual((await ow.actions.get({ name: 'hello', code: false })).exec.code, undefined)
  },

  async 'an action of nodejs, in a buffer' () {
    const action = 'function main (args) { return { node: args.n } }'
    const made = await ow.actions.create({ name: 'node', action })
    assert.strictEqual(made.exec.kind.startsWith('nodejs'), true)
    const result = await ow.actions.invoke({ name: 'node', blocking: true, result: true, params: { n: 4 } })
    assert.deepStrictEqual(result, { node: 4 })
    await ow.actions.delete('node')
  },

  async invocations () {
    const record = await ow.actions.invoke({ name: 'hello', blocking: true, params: { b: 2 } })
    assert.deepStrictEqual(record.response.result, { got: { a: 1, b: 2 } })
    const result = await ow.actions.invoke({ name: '/_/hello', blocking: true, result: true })
    assert.deepStrictEqual(result, { got: { a: 1 } })
    const { activationId } = await ow.actions.invoke('hello')
    assert.match(activationId, /^[0-9a-f]{32}$/)
    await ow.actions.create({ name: 'fails', action: FAILS, kind })
    await assert.rejects(
      ow.actions.invoke({ name: 'fails', blocking: true }),
      error => error.statusCode === 502 && error.message.includes('on purpose')
    )
    await assert.rejects(ow.actions.invoke('nobody'), { statusCode: 404 })
  },

  async activations () {
    const { activationId } = await ow.actions.invoke({ name: 'hello', blocking: true })
    assert.deepStrictEqual((await ow.activations.get(activationId)).response.result, { got: { a: 1 } })
    assert.deepStrictEqual((await ow.activations.result(activationId)).result, { got: { a: 1 } })
    assert.match((await ow.activations.logs({ name: activationId })).logs[0], /stdout: said/)
    const listed = await ow.activations.list({ name: 'hello', limit: 1, since: 1, docs: true })
    assert.strictEqual(listed[0].activationId, activationId)
    await assert.rejects(ow.activations.get('0'.repeat(32)), { statusCode: 404 })
  },

  async packages () {
    const made = await ow.packages.create({ name: 'pack', package: { parameters: [{ key: 'p', value: 1 }] } })
    assert.deepStrictEqual(made.annotations, [])
    await ow.packages.update({ name: 'pack', package: { publish: true, parameters: [{ key: 'p', value: 1 }] } })
    await ow.actions.create({ name: 'pack/inner', action: CODE, kind })
    const result = await ow.actions.invoke({ name: 'pack/inner', blocking: true, result: true })
    assert.deepStrictEqual(result, { got: { p: 1 } })
    assert.deepStrictEqual((await ow.packages.get('pack')).actions.map(each => each.name), ['inner'])
    assert.deepStrictEqual((await ow.packages.list()).map(each => each.name), ['pack'])
    await ow.packages.create({ name: 'bound', package: { binding: { namespace: 'guest', name: 'pack' } } })
    const bound = await ow.actions.invoke({ name: 'bound/inner', blocking: true })
    assert.deepStrictEqual(bound.response.result, { got: { p: 1 } })
    await ow.packages.delete('bound')
    await assert.rejects(ow.packages.delete('pack'), { statusCode: 409 })
    await ow.actions.delete('pack/inner')
    await ow.packages.delete('pack')
  },

  async sequences () {
    await ow.actions.create({ name: 'twice', sequence: ['/_/hello', '/_/hello'] })
    const result = await ow.actions.invoke({ name: 'twice', blocking: true, result: true, params: { s: 1 } })
    assert.deepStrictEqual(result, { got: { a: 1, got: { a: 1, s: 1 } } })
    await ow.actions.delete('twice')
  },

  async 'triggers and rules' () {
    const trigger = await ow.triggers.create({ name: 'event', trigger: { parameters: [{ key: 't', value: 1 }] } })
    assert.deepStrictEqual(trigger.limits, {})
    assert.deepStrictEqual(trigger.annotations, [])
    const rule = await ow.rules.create({ name: 'rule', action: 'hello', trigger: 'event' })
    assert.deepStrictEqual(rule.trigger, { path: 'guest', name: 'event' })
    assert.deepStrictEqual(rule.action, { path: 'guest', name: 'hello' })
    const fired = await ow.triggers.invoke({ name: 'event', params: { fired: 1 } })
    const told = JSON.parse((await ow.activations.logs(fired.activationId)).logs[0])
    assert.strictEqual(told.rule, 'guest/rule')
    await ow.rules.disable({ name: 'rule' })
    assert.strictEqual((await ow.rules.get('rule')).status, 'inactive')
    await ow.rules.enable({ name: 'rule' })
    assert.strictEqual((await ow.rules.get('rule')).status, 'active')
    assert.deepStrictEqual((await ow.rules.list()).map(each => each.name), ['rule'])
    await ow.rules.update({ name: 'rule', action: 'fails', trigger: 'event' })
    await ow.rules.delete('rule')
    await ow.triggers.update({ name: 'event' })
    assert.deepStrictEqual((await ow.triggers.list()).map(each => each.name), ['event'])
    await ow.triggers.get('event')
    await ow.triggers.delete('event')
  },

  async feeds () {
    const told = { name: 'hello', trigger: 'event', params: { feed: 1 } }
    for (const [call, lifecycleEvent] of [['create', 'CREATE'], ['get', 'READ'], ['update', 'UPDATE'], ['delete', 'DELETE']]) {
      const { response } = await ow.feeds[call]({ ...told })
      assert.strictEqual(response.result.got.lifecycleEvent, lifecycleEvent)
      assert.strictEqual(response.result.got.triggerName, '/_/event')
      assert.strictEqual(response.result.got.authKey, key)
    }
  },

  // What differs: there is no API gateway, so its routes are told that they are not there.
  async routes () {
    await assert.rejects(ow.routes.list(), { statusCode: 404 })
  },

  async 'the end' () {
    for (const name of ['hello', 'fails']) await ow.actions.delete(name)
    await assert.rejects(ow.actions.get('hello'), { statusCode: 404 })
  }
}

async function main () {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step()
      console.log(`${name}: ok`)
    } catch (error) {
      console.error(`${name}: ${error.stack}`)
      process.exitCode = 1
      return
    }
  }
}

main()
