/** What apt prints becomes packages: names, digests and the closure of what an image needs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closureOf, parseDepends, parseUris } from '../../../scripts/setup/apt.ts';

test('files to fetch are read with their versions and digests', () => {
  const hex = 'ab'.repeat(32);
  const text = [
    'W: something on the way',
    `'http://host/pool/b/busybox_1.35%2bdeb12u1_amd64.deb' busybox_1%3a1.35+deb12u1_amd64.deb 928188 SHA256:${hex}`,
    `'http://host/pool/z/zlib1g_1.2_amd64.deb' zlib1g_1.2_amd64.deb 86720 MD5Sum:${hex.slice(0, 32)}`,
    '',
  ].join('\n');
  assert.deepEqual(parseUris(text), [
    {
      name: 'busybox',
      version: '1:1.35+deb12u1',
      file: 'busybox_1%3a1.35+deb12u1_amd64.deb',
      bytes: 928188,
      digest: `sha256:${hex}`,
    },
  ]);
});

test('a file name cannot leave the folder it is fetched into', () => {
  const hex = 'ab'.repeat(32);
  for (const file of ['../x_1_amd64.deb', 'x_../../1_amd64.deb', '/etc/x_1_amd64.deb']) {
    assert.deepEqual(parseUris(`'http://host/x' ${file} 1 SHA256:${hex}`), []);
  }
});

const DEPENDS = `python3
  PreDepends: python3-minimal
  Depends: libpython3
ca-certificates
  Depends: openssl
 |Depends: debconf
  Depends: <debconf-2.0>
    cdebconf
    debconf
python3-minimal
  Depends: dpkg
openssl
  Depends: libc6
  Depends: <libssl>
    libssl3
    libssl1
libpython3
 |Depends: media-types
 |Depends: mime-support
  Depends: mailcap
<debconf-2.0>
cdebconf
  Depends: libnewt
dpkg
  Depends: tar
`;

test('of alternatives the first counts, of a virtual package its first provider', () => {
  const graph = parseDepends(DEPENDS);
  assert.deepEqual(graph.get('python3'), ['python3-minimal', 'libpython3']);
  assert.deepEqual(graph.get('ca-certificates'), ['openssl', 'debconf']);
  assert.deepEqual(graph.get('openssl'), ['libc6', 'libssl3']);
  assert.deepEqual(graph.get('libpython3'), ['media-types']);
});

test('what is cut away takes along what only it needs', () => {
  const graph = parseDepends(DEPENDS);
  const all = ['dpkg', 'libpython3', 'media-types', 'python3', 'python3-minimal', 'tar'];
  const few = ['libpython3', 'python3', 'python3-minimal'];
  assert.deepEqual(closureOf(graph, ['python3'], []), all);
  assert.deepEqual(closureOf(graph, ['python3'], ['dpkg', 'media-types']), few);
});

test('packages that need each other do not keep it busy for ever', () => {
  const graph = new Map([['libc6', ['libgcc-s1']], ['libgcc-s1', ['libc6']]]);
  assert.deepEqual(closureOf(graph, ['libc6'], []), ['libc6', 'libgcc-s1']);
});
