/** Patterns and lines of feeds: whatever they are, the answer is normalised indicators within bounds, or a refusal. */
import assert from 'node:assert/strict';
import { parseLine } from '../../../src/intel/blocklist.ts';
import { normalise } from '../../../src/intel/indicator.ts';
import { formatRecord, parseRecord } from '../../../src/intel/record.ts';
import { parsePattern, patternBounds } from '../../../src/intel/stix-pattern.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const seeds = [
  "[ipv4-addr:value = '198.51.100.3' OR domain-name:value IN ('a.example', 'b.example')]",
  "([file:hashes.'SHA-256' = 'aec070645fe53ee3b3763059376134f0' AND file:name = 'x']) WITHIN 5 SECONDS",
  "[url:value = 'http://a.example/\\'x'] OR [a:b = 'c']",
  "[domain-name:value = 'a.example'] FOLLOWEDBY [ipv6-addr:value ISSUBSET '2001:db8::/32'] START t'2026' STOP t'x'",
  '192.0.2.7/24 # note',
  'hxxps://bad[.]example/x',
  '0.0.0.0 a.example b.example',
  '"2026-11-24 10:00:00 UTC","a ""b""","192.0.2.1:80"',
].map((text) => Buffer.from(text));
const formats = ['lines', 'hosts', 'csv'] as const;

export const stix: FuzzTarget = {
  smokeIterations: 20_000,
  make: (random) => mutate(random, random.pick(seeds), 5),
  check(input) {
    const text = input.toString('utf8');
    const parsed = parsePattern(text);
    if (parsed.ok) {
      assert.ok(parsed.values.length <= patternBounds.valuesMax);
      for (const { kind, value } of parsed.values) assert.equal(normalise(kind, value), value, 'normal form is stable');
    }
    for (const format of formats) {
      for (const one of parseLine(text, { format }, { confidence: 50, severity: 'low', labels: ['x'] }) ?? []) {
        assert.equal(normalise(one.kind, one.value), one.value, 'normal form is stable');
        assert.equal(parseRecord(formatRecord(one))?.value, one.value, 'what is stored is what was read');
      }
    }
  },
};
