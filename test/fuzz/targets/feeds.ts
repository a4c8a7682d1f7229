/** Documents, configurations and signatures of feeds: a refusal or normalised indicators; nothing else is thrown. */
import assert from 'node:assert/strict';
import { MayflyError } from '../../../src/core/errors.ts';
import { parseConfig } from '../../../src/intel/config.ts';
import { normalise } from '../../../src/intel/indicator.ts';
import { checkMinisign, minisignHash, parseMinisignKey } from '../../../src/intel/minisign.ts';
import { parseMisp } from '../../../src/intel/misp.ts';
import { parseStix } from '../../../src/intel/stix.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const KEY = 'RWQ4LGlGMU6S/yCzRetyfbzVFsdDRrR6G2NDdntYegBLvJKvZ8zXPGKw';
const SIGNATURE = `untrusted comment: x
RUQ4LGlGMU6S/w77IcgDrZiq6dAIGsdGlCrxYZSWAkzODQWOvB/yCf7xAKT2oY3E+vO02C0UetrYIt7F1fhFte4AqPijAJrgvgo=
trusted comment: timestamp:1795000000\tfile:list.txt\thashed
h05NFiQLJ62X6Gio7UVIV3pSOZJqT9dvzUCLox3jujaujpv3fDe/jlVanQUKfljv+Nt7EdWrV5uzm/zF6siMDA==
`;
const LIST = minisignHash().update('203.0.113.7\nbad.example\n').digest();
const seeds = [
  `{"type":"bundle","objects":[{"type":"indicator","id":"indicator--1","pattern":"[ipv4-addr:value = '192.0.2.1']",
    "confidence":50,"valid_from":"2026-01-01T00:00:00Z","kill_chain_phases":[{"phase_name":"c2"}],"labels":["a"]}]}`,
  `{"Event":{"threat_level_id":"1","Tag":[{"name":"tlp:red"}],"Attribute":[{"type":"domain|ip","to_ids":true,
    "value":"a.example|192.0.2.1","uuid":"1","timestamp":"1700000000"}],"Object":[{"Attribute":[]}]}}`,
  'feeds:\n  - {name: a, format: lines, path: x, every: 1h, maxAge: 2d, deny: false}\nprotect: [a.example]\n',
  `feeds:
  - {name: b, format: csv, url: "https://a.example/x", minisign: ${KEY}, auth: {kind: bearer, tokenEnv: T}}\n`,
  SIGNATURE,
  KEY,
].map((text) => Buffer.from(text));
const own = parseMinisignKey(KEY);
assert.ok(own !== undefined);
const defaults = { confidence: 50, severity: 'low', labels: [] } as const;

export const feeds: FuzzTarget = {
  smokeIterations: 600,
  make: (random) => mutate(random, random.pick(seeds), 6),
  check(input) {
    const text = input.toString('utf8');
    let document: unknown;
    try {
      document = JSON.parse(text);
    } catch {
      document = text;
    }
    for (const parsed of [parseStix(document, defaults), parseMisp(document, defaults)]) {
      for (const { kind, value, confidence } of parsed?.indicators ?? []) {
        assert.equal(normalise(kind, value), value, 'normal form is stable');
        assert.ok(confidence >= 0 && confidence <= 100);
      }
    }
    try {
      parseConfig(text, '/nowhere');
    } catch (thrown) {
      assert.ok(thrown instanceof MayflyError && thrown.code === 'E_INTEL_CONFIG', String(thrown));
    }
    const key = parseMinisignKey(text);
    const lines = (of: string): string[] => of.split(/\r?\n/, 4).slice(1);
    if (checkMinisign(text, LIST, own).ok) assert.deepEqual(lines(text), lines(SIGNATURE), 'only the real one');
    if (key !== undefined && checkMinisign(SIGNATURE, LIST, key).ok) assert.equal(text.trim(), KEY);
  },
};
