/**
 * Goal: a folder becomes a version that is exactly its content; which one is in use can be changed back, seen at once
 * by a process that runs, and damage is found. Method: real folders.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Registry, VERSIONS } from '../../../src/function/registry.ts';
import { openVersions, packVersion } from '../../../src/function/version.ts';
import { inFolder } from '../../vm/rig.ts';

interface Setting {
  readonly source: string;
  readonly folder: string;
  open(): Registry;
}

async function inSetting(work: (setting: Setting) => Promise<void>): Promise<void> {
  await inFolder(async (root) => {
    const [source, folder] = [join(root, 'source'), join(root, 'functions')];
    mkdirSync(source);
    let count = 0;
    const open = (): Registry => new Registry({
      folder, versions: openVersions(join(folder, VERSIONS), () => String(count++)), now: () => `time ${count++}`,
    });
    writeFileSync(join(source, 'mayfly.yaml'), 'mayfly: 1\nname: hello\nhandler: h.mjs\nrules: rules\nenv: {A: b}\n');
    writeFileSync(join(source, 'h.mjs'), 'export default () => 1;');
    mkdirSync(join(source, 'rules'));
    writeFileSync(join(source, 'rules/a.yaml'), 'rulesVersion: 1\nrules: []\n');
    await work({ source, folder, open });
  });
}

test('the same content is the same version; what the function gets is neither manifest nor rules', async () => {
  await inSetting(async ({ source, folder, open }) => {
    const registry = open();
    const first = await packVersion(source);
    assert.equal((await packVersion(source)).digest, first.digest);
    await registry.deploy('acme', first);
    await registry.deploy('acme', first);
    assert.deepEqual(readdirSync(join(folder, VERSIONS)), [first.digest.slice(7)]);
    const loaded = await registry.load('acme', 'hello');
    assert.deepEqual(loaded.workload.entries.map(({ path }) => path), ['h.mjs']);
    assert.equal(loaded.workload.kind === 'runtime' && loaded.workload.handler, '/function/h.mjs');
    assert.deepEqual([...(loaded.workload.env ?? [])], [['A', 'b']]);
    assert.deepEqual(loaded.rules?.rules, []);
    assert.equal(await registry.load('acme', 'hello'), loaded, 'loaded once');
    chmodSync(join(source, 'h.mjs'), 0o755);
    assert.notEqual((await packVersion(source)).digest, first.digest, 'a mode is content');
  });
});

test('deploy, roll back, delete: another process sees it at once, and what nobody uses goes', async () => {
  await inSetting(async ({ source, folder, open }) => {
    const [writer, reader] = [open(), open()];
    const digests: string[] = [];
    for (const text of ['1', '2', '3']) {
      writeFileSync(join(source, 'h.mjs'), `export default () => ${text};`);
      const packed = await packVersion(source);
      digests.push(packed.digest);
      await writer.deploy('acme', packed);
      assert.equal((await reader.load('acme', 'hello')).digest, packed.digest);
    }
    await writer.rollback('acme', 'hello');
    assert.equal((await reader.load('acme', 'hello')).digest, digests[1]);
    await writer.rollback('acme', 'hello', digests[0]?.slice(7, 15));
    assert.equal((await reader.load('acme', 'hello')).digest, digests[0]);
    await assert.rejects(writer.rollback('acme', 'hello', 'ffff'), { code: 'E_FUNCTION_UNKNOWN' });
    await assert.rejects(reader.load('other', 'hello'), { code: 'E_FUNCTION_UNKNOWN' });
    await assert.rejects(reader.load('..', 'hello'), { code: 'E_FUNCTION_UNKNOWN' });
    await assert.rejects(reader.load(VERSIONS, 'hello'), { code: 'E_FUNCTION_UNKNOWN' });
    assert.deepEqual([await reader.tenants(), await reader.names('acme')], [['acme'], ['hello']]);
    await writer.remove('acme', 'hello');
    await assert.rejects(reader.load('acme', 'hello'), { code: 'E_FUNCTION_UNKNOWN' });
    assert.deepEqual(readdirSync(join(folder, VERSIONS)), []);
  });
});

test('F1: a version that was changed on disk does not run', async () => {
  await inSetting(async ({ source, folder, open }) => {
    const packed = await packVersion(source);
    await open().deploy('acme', packed);
    const place = join(folder, VERSIONS, packed.digest.slice(7));
    for (const file of ['code', 'version.json']) {
      const content = readFileSync(join(place, file));
      writeFileSync(join(place, file), String(content).replace('1', '2'));
      await assert.rejects(open().load('acme', 'hello'), { code: 'E_FUNCTION_CORRUPT' }, file);
      writeFileSync(join(place, file), content);
    }
    await open().load('acme', 'hello');
  });
});

test('a folder that cannot be a function says why', async () => {
  await inSetting(async ({ source }) => {
    symlinkSync('/etc', join(source, 'etc'));
    await assert.rejects(packVersion(source), { code: 'E_CODE_UNSAFE' });
    writeFileSync(join(source, 'mayfly.yaml'), 'mayfly: 1\nname: hello\nexec: h.mjs\n');
    await assert.rejects(packVersion(join(source, 'rules')), { code: 'E_MANIFEST_INVALID', message: /no such file/ });
    writeFileSync(join(source, 'rules/a.yaml'), 'rulesVersion: 7\n');
    writeFileSync(join(source, 'mayfly.yaml'), 'mayfly: 1\nname: hello\nhandler: h.mjs\nrules: rules\n');
    await assert.rejects(packVersion(source), { code: 'E_RULES_INVALID' });
  });
});
