/**
 * Goal: a manifest has one text and one meaning, and nothing else is a manifest.
 * Method: a good one is read back; then every field of it is removed, doubled, mistyped and stretched.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalJson, digestOf } from '../../../src/core/json.ts';
import { limits } from '../../../src/core/limits.ts';
import { encodeManifest, isDigest, isImageName, manifestDigest, parseManifest } from '../../../src/image/manifest.ts';
import type { ImageManifest } from '../../../src/image/manifest.ts';
import { sampleManifest } from './manifests.ts';

const refused = { code: 'E_IMAGE_MANIFEST' } as const;
const parse = (value: unknown): ImageManifest => parseManifest(Buffer.from(canonicalJson(value)));

test('what is written is what is read, under one digest', () => {
  const manifest = sampleManifest();
  const bytes = encodeManifest(manifest);
  assert.deepEqual(parseManifest(bytes), manifest);
  assert.deepEqual(encodeManifest(parseManifest(bytes)), bytes);
  assert.equal(manifestDigest(bytes), digestOf(bytes));
  const turned = Object.fromEntries(Object.entries(manifest).reverse()) as unknown as ImageManifest;
  assert.deepEqual(encodeManifest(turned), bytes, 'the order of keys has no meaning');
  const command = { entrypoint: [], cmd: ['/bin/sh', '-c', 'cat'], env: ['PATH=/bin'] };
  const started = sampleManifest({ command });
  assert.deepEqual(parseManifest(encodeManifest(started)), started);
  const bare = sampleManifest({ runtime: null, packages: [], serves: { contentTypes: [], eventTypes: [] } });
  assert.deepEqual(parseManifest(encodeManifest(bare)), bare);
});

test('the digest of a manifest is pinned: another format is another version', () => {
  const pinned = 'sha256:7e5c6df86c998203009e2d064795e73d2a6720e649bd941294321998cfa8b54b';
  assert.equal(manifestDigest(encodeManifest(sampleManifest())), pinned);
});

test('no field may be missing, and there are no others', () => {
  const whole = sampleManifest() as unknown as Record<string, unknown>;
  for (const name of Object.keys(whole)) {
    const { [name]: _gone, ...rest } = whole;
    assert.throws(() => parse(rest), { ...refused, message: new RegExp(name) });
    for (const wrong of [1.5, true, [], {}, 'x\u0000', [[]], [null]]) {
      if (Array.isArray(wrong) && wrong.length === 0 && ['layers', 'packages'].includes(name)) continue;
      assert.throws(() => parse({ ...whole, [name]: wrong }), refused, `${name}: ${JSON.stringify(wrong)}`);
    }
  }
  assert.throws(() => parse({ ...whole, allowUnsigned: true }), { ...refused, message: /allowUnsigned/ });
  assert.throws(() => parse(JSON.parse(`{"__proto__":${canonicalJson(whole)}}`)), refused);
});

test('values outside their bounds or forms are named', () => {
  const long = 'x'.repeat(limits.imageTextUnits + 1);
  const { fileSystem, runtime } = sampleManifest();
  const item = { name: 'a', version: '1', purl: 'pkg:deb/debian/a@1' };
  const many = Array.from({ length: limits.imagePackagesMax + 1 }, (_, n) => {
    return { ...item, purl: `pkg:deb/debian/a@${String(n).padStart(5, '0')}` };
  });
  const wrong: readonly (readonly [RegExp, object])[] = [
    [/manifestVersion/, { manifestVersion: 2 }],
    [/name/, { name: '../node' }],
    [/name/, { name: 'x'.repeat(64) }],
    [/description/, { description: long }],
    [/description/, { description: 'red \u001b[31m' }],
    [/classes/, { classes: [] }],
    [/classes/, { classes: ['web', 'compute'] }],
    [/classes/, { classes: ['compute', 'compute'] }],
    [/classes/, { classes: ['everything'] }],
    [/argv/, { runtime: { argv: [], env: [] } }],
    [/argv/, { runtime: { argv: ['node'], env: [] } }],
    [/env/, { runtime: { ...runtime, env: ['no equals sign'] } }],
    [/command/, { command: { entrypoint: [], cmd: [], env: [] } }],
    [/command/, { command: { entrypoint: ['sh'], cmd: ['/x'], env: [] } }],
    [/contentTypes/, { serves: { contentTypes: ['*/*'], eventTypes: [] } }],
    [/eventTypes/, { serves: { contentTypes: [], eventTypes: ['a*b'] } }],
    [/seccomp/, { policy: { seccomp: 'Un confined', appArmor: 'compute' } }],
    [/kernel/, { kernel: { minimum: '6' } }],
    [/architecture/, { platform: { os: 'linux', architecture: 'arm64' } }],
    [/fileSystem\.bytes/, { fileSystem: { ...fileSystem, bytes: -1 } }],
    [/fileSystem\.bytes/, { fileSystem: { ...fileSystem, bytes: limits.imageFileSystemBytesMax + 1 } }],
    [/fileSystem\.digest/, { fileSystem: { ...fileSystem, digest: 'sha256:../../../etc/passwd' } }],
    [/fileSystem\.type/, { fileSystem: { ...fileSystem, type: 'ext4' } }],
    [/layers/, { layers: Array.from({ length: limits.imageLayersMax }, () => fileSystem) }],
    [/purl/, { packages: [{ ...item, purl: 'a@1' }] }],
    [/packages/, { packages: [item, item] }],
    [/packages/, { packages: many }],
    [/created/, { created: '2026-99-24T12:00:00.000Z' }],
    [/created/, { created: 'yesterday' }],
  ];
  for (const [message, different] of wrong) {
    assert.throws(() => parse({ ...sampleManifest(), ...different }), { ...refused, message });
    assert.throws(() => encodeManifest({ ...sampleManifest(), ...different }), { ...refused, message });
  }
});

test('any other text of the same manifest is refused, so nobody signs one and reads another', () => {
  const bytes = encodeManifest(sampleManifest()).toString();
  const others = [
    ` ${bytes}`, `${bytes}\n`, bytes.replace('"manifestVersion":1', '"manifestVersion":1.0'),
    bytes.replace('"name":"node"', '"name":"\\u006eode"'), bytes.replace('{', '{"name":"shell",'),
    JSON.stringify(sampleManifest()), `\ufeff${bytes}`,
  ];
  for (const other of others) assert.throws(() => parseManifest(Buffer.from(other)), refused, other.slice(0, 60));
});

test('a manifest that was cut off anywhere is refused', () => {
  const bytes = encodeManifest(sampleManifest());
  for (let length = 0; length < bytes.length; length += 7) {
    assert.throws(() => parseManifest(bytes.subarray(0, length)), refused, `${length} bytes`);
  }
});

test('size and depth end the reading before it begins', () => {
  assert.throws(() => parseManifest(Buffer.alloc(limits.imageManifestBytesMax + 1, '[')), refused);
  assert.throws(() => parseManifest(Buffer.from('['.repeat(100_000))), refused);
});

test('names and digests are recognised by the same rule everywhere', () => {
  for (const name of ['node', 'node-22', 'a']) assert.equal(isImageName(name), true, name);
  for (const name of ['', 'Node', 'a--b', '-a', 'a-', '1a', 'a/b', 'a:b', '__proto__']) {
    assert.equal(isImageName(name), false, name);
  }
  assert.equal(isDigest(digestOf('x')), true);
  assert.equal(isDigest('sha256:abc'), false);
});
