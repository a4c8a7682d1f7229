/** Goal: a key opens what it was made for until it is revoked or expires, and nothing on disk can be used as one. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isServiceName } from '../../../src/function/manifest.ts';
import { Tenants } from '../../../src/tenant/tenants.ts';
import { inFolder, random } from '../../vm/rig.ts';

function open(home: string, now = '2026-01-01T00:00:00.000Z'): Tenants {
  return new Tenants({ home, random, now: () => now, isName: isServiceName });
}

const order = { tenant: 'acme', roles: ['invoke'], label: 'test', expiresAt: null } as const;

test('E5: a key is known by its secret only, at once and no longer than it lives', async () => {
  await inFolder(async (home) => {
    const [tenants, service] = [open(home), open(home)];
    await assert.rejects(tenants.createKey(order), { code: 'E_TENANT_UNKNOWN' });
    await tenants.put('acme');
    const { key, id } = await tenants.createKey(order);
    assert.match(key, /^mayfly_[a-z0-9]{16}_[A-Za-z0-9_-]{43}$/);
    assert.equal((await service.authenticate(key))?.tenant, 'acme');
    const flipped = key.slice(0, -2) + (key.at(-2) === 'A' ? 'B' : 'A') + key.slice(-1);
    for (const wrong of [
      '',
      'x',
      flipped,
      key.toUpperCase(),
      `${key}x`,
      ` ${key}`,
      `mayfly_${'z'.repeat(16)}_${'A'.repeat(43)}`,
    ]) {
      assert.equal(await service.authenticate(wrong), undefined, wrong);
    }
    const short = await tenants.createKey({ ...order, expiresAt: '2026-06-01T00:00:00.000Z' });
    assert.ok(await service.authenticate(short.key));
    assert.equal(await open(home, '2026-06-01T00:00:00.000Z').authenticate(short.key), undefined);
    await tenants.revoke(id);
    assert.equal(await service.authenticate(key), undefined, 'a service that runs sees it as well');
    await assert.rejects(tenants.revoke('../tenants/acme'), { code: 'E_KEY_UNKNOWN' });
    await tenants.remove('acme');
    assert.equal(await service.authenticate(short.key), undefined);
  });
});

test('H3: no file has a key, and none can be read by others', async () => {
  await inFolder(async (home) => {
    const tenants = open(home);
    await tenants.put('acme');
    const { key } = await tenants.createKey(order);
    for (const folder of ['tenants', 'api-keys']) {
      for (const name of readdirSync(join(home, folder))) {
        const path = join(home, folder, name);
        assert.equal(statSync(path).mode & 0o077, 0, path);
        assert.ok(!readFileSync(path, 'utf8').includes(key.slice(-43)), path);
      }
    }
  });
});

test('quotas are kept when others change, and names can be no path', async () => {
  await inFolder(async (home) => {
    const tenants = open(home);
    await tenants.put('acme', { eventsPerSecond: 5 });
    assert.deepEqual((await tenants.put('acme', { queued: 7 })).quota, {
      eventsPerSecond: 5,
      queued: 7,
      concurrency: null,
    });
    for (const name of ['../x', 'versions', '', 'A']) await assert.rejects(tenants.put(name), { code: 'E_USAGE' });
    assert.deepEqual((await tenants.list()).map(({ name }) => name), ['acme']);
    assert.equal(await tenants.find('../tenants/acme'), undefined);
  });
});
