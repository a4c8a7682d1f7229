/** Events and archives: extraction ends, within its bounds, with the same answer each time. */
import assert from 'node:assert/strict';
import { limits } from '../../../src/core/limits.ts';
import { listArchive } from '../../../src/intel/archive.ts';
import { observe } from '../../../src/intel/observe.ts';
import { unpack } from '../../../src/intel/unpack.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

/** A zip with one member of one byte, stored. */
const zip = Buffer.from(
  '504b03040a00000000000000210083dc efb701000000010000000100000061'.replace(' ', '') +
    '31' +
    '504b01021e030a00000000000000210083dcefb7010000000100000001000000000000000000000000000000000061' +
    '504b050600000000010001002f000000200000000000',
  'hex',
);
const tar = Buffer.concat([Buffer.from('a.txt'.padEnd(124, '\0')), Buffer.from('00000000001\0'), Buffer.alloc(1024)]);
const event = Buffer.from(
  JSON.stringify({
    __proto__: 1,
    link: 'http://a.example/x?y=1 192.0.2.1 ::ffff:192.0.2.1 2001:db8::1 a@b.example',
    name: 'a.pdf.exe',
    content: Buffer.concat([zip, Buffer.alloc(64, 65)]).toString('base64'),
    data: `data:image/png;base64,${tar.toString('base64')}`,
  }),
);

export const observer: FuzzTarget = {
  smokeIterations: 400,
  make: (random) => mutate(random, random.pick([zip, tar, event, event]), 6),
  async check(input) {
    for (const type of ['application/zip', 'application/x-tar', 'application/gzip']) {
      const { members, unpackedBytes } = listArchive(input, type);
      assert.ok(members.length <= limits.archiveMembersMax && unpackedBytes >= 0);
    }
    for (const type of ['application/zip', 'application/x-tar', 'application/gzip']) {
      const { members } = await unpack(input, type, { bytes: 4096, members: 4 });
      assert.ok(members.length <= 4 && members.reduce((sum, { content }) => sum + content.length, 0) <= 4096);
    }
    let value: unknown;
    try {
      value = JSON.parse(input.toString('utf8'));
    } catch {
      value = { data_base64: input.toString('base64'), text: input.toString('latin1') };
    }
    const one = await observe({ value, bytes: input.length });
    assert.deepEqual(await observe({ value, bytes: input.length }), one);
    assert.ok(one.observables.length <= limits.observablesMax);
  },
};
