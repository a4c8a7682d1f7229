/** E3: one idempotency key: with the same body one run and one answer, however often and at once; else 409. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { caller } from '../unit/serve/http.ts';
import { openServe } from '../unit/serve/rig.ts';
import { inFolder } from '../vm/rig.ts';

test('E3: fifty requests with one key at once are one run and one answer; another body is refused', async () => {
  await inFolder(async (home) => {
    const path = '/v1/functions/hello/events';
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'order-7' };
    let first = await openServe(home);
    await first.deploy('hello');
    const key = await first.key('acme', 'invoke');
    let call = await caller(first);
    const body = '{"millis":100,"n":1}';
    const answers = await Promise.all(Array.from({ length: 50 }, () => call('POST', path, { key, headers, body })));
    assert.deepEqual([...new Set(answers.map(({ status, text }) => `${status} ${text}`))], [`200 ${body}`]);
    assert.equal(new Set(answers.map(({ headers: got }) => got.get('mayfly-run'))).size, 1);
    assert.equal(answers.filter(({ headers: got }) => got.get('idempotent-replayed') === null).length, 1);
    assert.equal(first.runner.runs.length, 1);
    for (const other of ['{"millis":100,"n":2}', `${body} `]) {
      const { status, json } = await call('POST', path, { key, headers, body: other });
      assert.deepEqual([status, json.code], [409, 'E_IDEMPOTENCY_CONFLICT']);
    }
    const asText = { ...headers, 'content-type': 'text/plain' };
    assert.equal(
      (await call('POST', path, { key, headers: asText, body })).status,
      409,
      'the type is part of the request',
    );
    const failing = { ...headers, 'idempotency-key': 'fails' };
    const failed = await call('POST', path, { key, headers: failing, body: '{"do":"throw"}' });
    const again = await call('POST', path, { key, headers: failing, body: '{"do":"throw"}' });
    assert.deepEqual([failed.status, again.status, again.json.run], [502, 502, failed.json.run]);
    await first.close();
    first = await openServe(home);
    call = await caller(first);
    const later = await call('POST', path, { key, headers, body });
    assert.deepEqual([later.status, later.text, first.runner.runs.length], [200, body, 0], 'also after a restart');
    await first.close();
  });
});
