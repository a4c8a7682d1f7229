/**
 * Goal: a command that only tells something loads no engine, and help not even the App: that is most of what they cost.
 * Method: the real main.ts, with a hook that notes which of the product's modules are loaded.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

const root = join(import.meta.dirname, '../../..');
const home = mkdtempSync(join(tmpdir(), 'mayfly-lazy-'));
after(() => rmSync(home, { recursive: true }));

const HOOK = `
import { registerHooks } from 'node:module';
import { writeSync } from 'node:fs';
registerHooks({ load(url, context, next) { writeSync(2, 'loaded ' + url + '\\n'); return next(url, context); } });
`;

function loadedBy(...args: readonly string[]): string[] {
  const program = ['--import', `data:text/javascript,${encodeURIComponent(HOOK)}`, join(root, 'src/main.ts'), ...args];
  const env = { ...process.env, MAYFLY_HOME: home };
  const { status, stderr } = spawnSync(process.execPath, program, { env, encoding: 'utf8', timeout: 30_000 });
  assert.equal(status, 0, stderr);
  return [...stderr.matchAll(/^loaded file:.*\/src\/(.*\.ts)$/gm)].map(([, path = '']) => path);
}

test('help loads the command line alone', () => {
  for (const args of [['--help'], ['run', '--help']]) {
    const loaded = loadedBy(...args);
    assert.ok(loaded.includes('cli/program.ts'));
    assert.deepEqual(loaded.filter((path) => !/^(main|cli\/.*|core\/.*)\.ts$/.test(path)), []);
  }
});

test('version loads neither engine nor pipeline', () => {
  const loaded = loadedBy('version', '--json');
  assert.ok(loaded.includes('app.ts'));
  assert.deepEqual(loaded.filter((path) => /^(compose|pipeline|bridge\/|clone\/(vmm|template|clone))/.test(path)), []);
});
