/**
 * Goal: a name means what a trusted key has said, or nothing. Method: an attacker who can write everywhere below
 * MAYFLY_HOME but in `keys` changes bytes, tags, manifests and signatures, one at a time.
 */
import assert from 'node:assert/strict';
import { chmod, copyFile, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../../src/core/json.ts';
import { addSignature, encodeEnvelope, encodeTag, sealManifest } from '../../../src/image/envelope.ts';
import { limits } from '../../../src/core/limits.ts';
import { sampleManifest } from './manifests.ts';
import { imageRig, stranger } from './rig.ts';

const corrupt = { code: 'E_ARTEFACT_CORRUPT' } as const;
const forged = { code: 'E_IMAGE_SIGNATURE' } as const;
const unsigned = { code: 'E_IMAGE_UNSIGNED' } as const;

test('what is published is found by name, tag and digest, and listed with its signer', async (t) => {
  const { catalogue, keys, make } = await imageRig(t);
  const image = await make('base');
  await catalogue.tag('node', 'web-server:v1.2');
  for (const reference of ['node', 'node:latest', 'web-server:v1.2', image.digest]) {
    assert.deepEqual(await catalogue.find(reference), image, reference);
  }
  const { images, problems } = await catalogue.list();
  assert.deepEqual(problems, []);
  assert.deepEqual(images.map(({ digest, tags, trust }) => [digest, tags, trust]), [
    [image.digest, ['node:latest', 'web-server:v1.2'], { kind: 'signed', keyId: (await keys.own()).keyId }],
  ]);
  await catalogue.requireIntact(image, 'full');
});

test('ten images of one base have it once', async (t) => {
  const { catalogue, make } = await imageRig(t);
  for (let n = 0; n < 10; n++) await make('the same base', { name: `image-${n}` });
  assert.equal((await catalogue.blobs.list()).length, 1);
  assert.equal((await catalogue.list()).images.length, 10);
});

test('a changed byte is found, also when size and mtime are put back', async (t) => {
  const { catalogue, make } = await imageRig(t);
  const image = await make('base');
  const path = catalogue.blobs.path(image.manifest.fileSystem.digest);
  await catalogue.requireIntact(image, 'quick');
  const { atime, mtime } = await stat(path);
  await chmod(path, 0o644);
  await writeFile(path, 'BASE');
  await utimes(path, atime, mtime);
  for (const depth of ['quick', 'full'] as const) await assert.rejects(catalogue.requireIntact(image, depth), corrupt);
  await rm(path);
  await assert.rejects(catalogue.requireIntact(image, 'quick'), corrupt);
});

test('a tag that was copied over another, edited, cut off or made by a stranger names nothing', async (t) => {
  const { catalogue, make, damage, tagPath } = await imageRig(t);
  const node = await make('node');
  const shell = await make('shell', { name: 'shell' });
  const path = tagPath('node', 'latest');
  const good = await readFile(path);
  const attacks: Readonly<Record<string, () => Promise<void>>> = {
    swapped: () => copyFile(tagPath('shell', 'latest'), path),
    edited: () => damage(path, (text) => text.replace(node.digest, shell.digest)),
    renamed: () => damage(path, (text) => text.replace('"latest"', '"stable"')),
    'cut off': () => damage(path, (text) => text.slice(0, -20)),
    empty: () => damage(path, () => ''),
    stranger: () => writeFile(path, encodeTag({ name: 'node', tag: 'latest', digest: shell.digest }, stranger())),
    'of a manifest': () => damage(path, (text) => {
      return text.replace(/"value":"[^"]+"/, `"value":"${node.signatures[0]?.value}"`);
    }),
  };
  for (const [name, attack] of Object.entries(attacks)) {
    await attack();
    await assert.rejects(catalogue.find('node'), forged, name);
    assert.equal((await catalogue.find('shell')).digest, shell.digest);
    assert.deepEqual((await catalogue.list()).problems.map(({ what }) => what), ['node:latest'], name);
    await writeFile(path, good);
  }
  await damage(path, () => 'x'.repeat(limits.imageSmallFileBytesMax + 1));
  await assert.rejects(catalogue.find('node'), corrupt);
});

test('a manifest that was edited, swapped or cut off is not read', async (t) => {
  const { catalogue, make, damage, manifestPath } = await imageRig(t);
  const node = await make('node');
  const shell = await make('shell', { name: 'shell' });
  const path = manifestPath(node.digest);
  const good = await readFile(path, 'utf8');
  const attacks = [
    good.replace('"/usr/bin/node"', '"/bin/sh"'), good.slice(0, 300), '', '{}', ` ${good}`,
    good.replace('"envelopeVersion":1', '"envelopeVersion":0'), await readFile(manifestPath(shell.digest), 'utf8'),
  ];
  for (const text of attacks) {
    await damage(path, () => text);
    await assert.rejects(catalogue.find('node'), { code: 'E_IMAGE_MANIFEST' }, text.slice(0, 60));
    await assert.rejects(catalogue.find(node.digest), { code: 'E_IMAGE_MANIFEST' });
    assert.equal((await catalogue.list()).problems.length, 1);
  }
  await rm(path);
  await assert.rejects(catalogue.find('node'), { ...corrupt, message: /not here/ });
});

test('without a signature, with a stranger\'s or with a wrong one an image is refused', async (t) => {
  const { catalogue, keys, make, manifestPath } = await imageRig(t);
  const image = await make('base');
  const path = manifestPath(image.digest);
  const other = stranger();
  const plain = { ...image, signatures: [] };

  await writeFile(path, encodeEnvelope(plain));
  await assert.rejects(catalogue.find('node'), { ...unsigned, message: /not signed/ });
  assert.equal((await catalogue.find('node', { allowUnsigned: true })).digest, image.digest);

  await writeFile(path, encodeEnvelope(addSignature(plain, other)));
  await assert.rejects(catalogue.find('node'), { ...unsigned, message: new RegExp(other.keyId) });
  assert.equal(await keys.trust(other.pem, 'a file'), other.keyId);
  assert.equal((await catalogue.find('node')).digest, image.digest, 'its key is trusted now');
  assert.equal(await keys.distrust(other.keyId), true);
  await assert.rejects(catalogue.find('node'), unsigned);

  const moved = sealManifest(sampleManifest({ name: 'other' }), [await keys.own()]).signatures;
  await writeFile(path, encodeEnvelope({ ...image, signatures: moved }));
  await assert.rejects(catalogue.find('node'), forged);
  await assert.rejects(catalogue.find('node', { allowUnsigned: true }), forged, 'changed is worse than unsigned');
  await assert.rejects(catalogue.sign('node'), forged, 'and is not signed over');
});

test('signing adds a signature and keeps the others', async (t) => {
  const { catalogue, keys, make } = await imageRig(t);
  const base = await make('base');
  const other = stranger();
  const foreign = sealManifest({ ...base.manifest, name: 'vendor' }, [other]);
  await assert.rejects(catalogue.admit(foreign), unsigned);
  await catalogue.admit(foreign, { allowUnsigned: true });
  await assert.rejects(catalogue.find(foreign.digest), unsigned);
  const signed = await catalogue.sign(foreign.digest);
  const expected = [other.keyId, (await keys.own()).keyId].sort();
  assert.deepEqual(signed.signatures.map(({ keyId }) => keyId), expected);
  assert.deepEqual(await catalogue.find(foreign.digest), signed);
  assert.deepEqual(await catalogue.sign(foreign.digest), signed, 'once is enough');
});

test('a tag does not go back to an older image unless told to', async (t) => {
  const { catalogue, make } = await imageRig(t);
  const old = await make('old', { created: '2026-01-01T00:00:00.000Z' });
  const fresh = await make('fresh', { created: '2026-02-01T00:00:00.000Z' });
  await assert.rejects(catalogue.tag(old.digest, 'node:latest'), { code: 'E_IMAGE_DOWNGRADE' });
  await assert.rejects(catalogue.publish(old.manifest, 'node:latest'), { code: 'E_IMAGE_DOWNGRADE' });
  assert.equal((await catalogue.find('node')).digest, fresh.digest);
  await catalogue.tag(old.digest, 'node:old');
  await catalogue.tag(old.digest, 'node:latest', { allowDowngrade: true });
  assert.equal((await catalogue.find('node')).digest, old.digest);
});

test('tags go alone, images with all their tags', async (t) => {
  const { catalogue, make } = await imageRig(t);
  const image = await make('base');
  await catalogue.tag('node', 'node:a');
  await catalogue.tag('node', 'node:b');
  assert.equal(await catalogue.untag('node:a'), true);
  assert.equal(await catalogue.untag('node:a'), false);
  await assert.rejects(catalogue.find('node:a'), { code: 'E_IMAGE_UNKNOWN' });
  assert.deepEqual(await catalogue.remove('node:b'), { digest: image.digest, tags: ['node:b', 'node:latest'] });
  await assert.rejects(catalogue.find('node'), { code: 'E_SETUP_MISSING' });
  await assert.rejects(catalogue.remove(image.digest), { code: 'E_SETUP_MISSING' });
});

test('a tag is a name and nothing that leads elsewhere', async (t) => {
  const { catalogue, make } = await imageRig(t);
  await make('base');
  for (const tag of ['../x', 'node:../../x', 'node:', 'Node:x', 'a/b:c', digestOf('x'), 'node:.x']) {
    await assert.rejects(catalogue.tag('node', tag), { code: 'E_USAGE' }, tag);
  }
});

test('nothing is published whose bytes are not there', async (t) => {
  const { catalogue, make } = await imageRig(t);
  await make('base');
  await assert.rejects(catalogue.publish(sampleManifest({ name: 'empty' }), 'empty:latest'), corrupt);
  await assert.rejects(catalogue.find('empty'), { code: 'E_IMAGE_UNKNOWN' });
});

test('two writers at once both get their tag', async (t) => {
  const { catalogue, make } = await imageRig(t);
  await make('base');
  const tags = Array.from({ length: 6 }, (_, n) => `node:t${n}`);
  await Promise.all(tags.map((tag) => catalogue.tag('node', tag)));
  assert.deepEqual((await catalogue.list()).images[0]?.tags, ['node:latest', ...tags]);
});

test('keys: only this user\'s own, only Ed25519, only under their own name', async (t) => {
  const { keys, home, make } = await imageRig(t);
  await make('base');
  const key = join(home, 'keys', 'signing.key');
  assert.equal((await stat(key)).mode & 0o777, 0o600);
  assert.equal((await stat(join(home, 'keys'))).mode & 0o777, 0o700);
  const wrong = { code: 'E_IMAGE_KEY' } as const;
  await chmod(key, 0o644);
  await assert.rejects(keys.own(), { ...wrong, message: /read by others/ });
  await chmod(key, 0o600);
  await assert.rejects(keys.trust(await readFile(key), 'a file'), { ...wrong, message: /no public key/ });
  const empty = Buffer.from('-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n');
  await assert.rejects(keys.trust(empty, 'x'), wrong);
  const own = (await keys.own()).keyId;
  const path = join(home, 'keys', 'trusted', `${own.slice(7)}.pem`);
  await writeFile(path, stranger().pem);
  await assert.rejects(keys.trusted(), { ...wrong, message: /another key/ });
  await rename(path, join(home, 'keys', 'trusted', 'x.pem'));
  await assert.rejects(keys.trusted(), wrong);
  await writeFile(key, 'nonsense');
  await assert.rejects(keys.own(), wrong);
});
