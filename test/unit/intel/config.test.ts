/** Goal: a mistake in feeds.yaml has its line, and a stream of lines has the same lines however it is cut. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MayflyError } from '../../../src/core/errors.ts';
import { limits } from '../../../src/core/limits.ts';
import { parseConfig } from '../../../src/intel/config.ts';
import { linesOf } from '../../../src/intel/pull.ts';

test('lines are the same however the stream is cut, and too long ones are left out', async () => {
  const bytes = Buffer.from(`a\n\nbü\n${'x'.repeat(limits.intelLineUnitsMax + 1)}\nlast`);
  for (const size of [1, 2, 3, 7, 1000, bytes.length]) {
    async function* cut(): AsyncGenerator<Buffer> {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    }
    let leftOut = 0;
    const lines: string[] = [];
    for await (const block of linesOf(cut(), () => (leftOut += 1))) lines.push(...block);
    assert.deepEqual([lines, leftOut], [['a', '', 'bü', 'last'], 1], `cut into ${size}`);
  }
});

test('the configuration: every mistake has its line', () => {
  const feed = (more: string): string => `feeds:\n  - {name: f, format: lines, path: x, ${more}}\n`;
  const cases: readonly (readonly [string, string])[] = [
    ['feeds: [', 'line'],
    ['feeds: 7', 'list'],
    ['feed: []', 'unknown key'],
    [feed('colour: red'), 'unknown key'],
    [feed('maxAge: soon'), 'maxAge'],
    [feed('confidence: 101'), 'confidence'],
    [feed('url: "https://a.example/"'), 'either'],
    ['feeds:\n  - {name: f, format: lines, url: "http://a.example/"}', 'https'],
    ['feeds:\n  - {name: f, format: lines, url: "https://u:p@a.example/"}', 'credentials'],
    ['feeds:\n  - {name: ../f, format: lines, path: x}', 'name'],
    ['feeds: [{name: f, format: exe, path: x}]', 'format'],
    [feed('auth: {kind: bearer}'), 'tokenEnv'],
    [feed('tolerate: [growth]'), 'tolerate'],
    ['protect: ["!"]', 'protect'],
    ['a: &a [x]\nfeeds: [*a, *a]', 'alias'],
    ['feeds:\n  - {name: f, format: lines, path: x}\n  - {name: f, format: lines, path: y}', 'two feeds'],
  ];
  for (const [config, words] of cases) {
    assert.throws(() => parseConfig(config, '/folder'), (thrown: unknown) => {
      assert.ok(thrown instanceof MayflyError && thrown.code === 'E_INTEL_CONFIG', String(thrown));
      assert.match(thrown.message, new RegExp(words, 'i'));
      return true;
    });
  }
});
