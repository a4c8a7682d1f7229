/**
 * Goal: the rules of .dependency-cruiser.mjs forbid what they say; a pattern that matches nothing looks like a clean
 * tree. Method: a small tree with one planted violation of every rule, and imports beside them that are allowed.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');

interface Violation {
  readonly from: string;
  readonly to: string;
  readonly rule: { readonly name: string };
}

/** File: what it imports. A path that begins with `type ` is imported as a type. */
type Tree = Readonly<Record<string, readonly string[]>>;

const planted: Tree = {
  'src/core/time.ts': ['../event/event.ts'],
  'src/event/event.ts': [],
  'src/event/accept.ts': ['../core/time.ts', '../pipeline.ts', '../image/store.ts', 'type ../image/store.ts'],
  'src/event/code.ts': [],
  'src/image/store.ts': ['type ../event/accept.ts'],
  'src/profile/facts.ts': ['../clone/vmm/qemu.ts', 'type ../clone/vmm/contract.ts'],
  'src/clone/clone.ts': ['./jail.ts', './vmm/fake.ts', '../bridge/session.ts', '../profile/facts.ts'],
  'src/clone/jail.ts': ['./clone.ts'],
  'src/clone/vmm/contract.ts': [],
  'src/clone/vmm/qemu.ts': ['./contract.ts'],
  'src/clone/vmm/fake.ts': ['../../bridge/frame.ts'],
  'src/bridge/session.ts': ['./frame.ts', 'node:net', 'type ../egress/contract.ts', 'type ../egress/broker.ts'],
  'src/egress/contract.ts': [],
  'src/egress/broker.ts': ['type ./contract.ts'],
  'src/bridge/frame.ts': ['node:net', 'node:buffer'],
  'src/cli/run.ts': ['../app.ts', '../event/code.ts', '../image/store.ts', 'type ../profile/facts.ts'],
  'src/intel/assess.ts': ['./fetch.ts', 'type ./sync.ts', 'node:url'],
  'src/intel/fetch.ts': ['node:fs'],
  'src/intel/sync.ts': ['./fetch.ts'],
  'src/run.ts': ['./core/time.ts', 'type ./event/event.ts', 'node:path'],
  'src/pipeline.ts': ['./run.ts', './event/accept.ts', './nowhere.ts'],
  'src/serve/service.ts': ['../compose.ts', 'type ../app.ts'],
  'src/serve/runner.ts': ['../app.ts'],
  'src/compose.ts': [],
  'src/client/client.ts': ['../core/time.ts', 'type ../core/time.ts'],
  'src/app.ts': ['./pipeline.ts', './clone/vmm/qemu.ts', '../test/helper.ts'],
  'test/helper.ts': [],
};

const expected = [
  'cli-holds-no-logic: src/cli/run.ts -> src/image/store.ts',
  'client-is-for-browsers: src/client/client.ts -> src/core/time.ts',
  'core-stands-alone: src/core/time.ts -> src/event/event.ts',
  'egress-behind-its-contract: src/bridge/session.ts -> src/egress/broker.ts',
  'fake-is-for-tests: src/clone/clone.ts -> src/clone/vmm/fake.ts',
  'no-cycles: src/clone/clone.ts -> src/clone/jail.ts',
  'no-cycles: src/event/accept.ts -> src/pipeline.ts',
  'no-test-in-product: src/app.ts -> test/helper.ts',
  'pure-codec: src/bridge/frame.ts -> net',
  'pure-intel: src/intel/assess.ts -> src/intel/fetch.ts',
  'pure-run: src/run.ts -> path',
  'resolvable: src/pipeline.ts -> ./nowhere.ts',
  'service-runs-events-through-its-contract: src/serve/service.ts -> src/compose.ts',
  'stages-do-not-know-the-story: src/event/accept.ts -> src/pipeline.ts',
  'stages-meet-at-doors: src/event/accept.ts -> src/image/store.ts',
  'stages-meet-at-doors: src/profile/facts.ts -> src/clone/vmm/qemu.ts',
  'vmm-behind-its-contract: src/clone/clone.ts -> src/clone/vmm/fake.ts',
  'vmm-behind-its-contract: src/profile/facts.ts -> src/clone/vmm/qemu.ts',
];

function cruise(tree: Tree): Violation[] {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-seams-'));
  try {
    for (const [path, imports] of Object.entries(tree)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      const lines = imports.map((name, index) => {
        const type = name.startsWith('type ');
        return `import ${type ? 'type ' : ''}{ it as it${index} } from '${type ? name.slice(5) : name}';`;
      });
      const uses = imports.map((name, index) => (name.startsWith('type ') ? `it${index} | ` : `typeof it${index} | `));
      writeFileSync(join(folder, path), `${lines.join('\n')}\nexport const it: ${uses.join('')}1 = 1;\n`);
    }
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    const program = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs');
    const config = join(root, '.dependency-cruiser.mjs');
    const args = [program, 'src', '--config', config, '--output-type', 'json'];
    const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', timeout: 60_000 });
    assert.notEqual(stdout, '', stderr);
    return (JSON.parse(stdout) as { summary: { violations: Violation[] } }).summary.violations;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('every rule finds the violation that was planted for it, and nothing else', async () => {
  const found = cruise(planted).map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
  assert.deepEqual(found.sort(), [...expected].sort());
  const { default: config } = await import(join(root, '.dependency-cruiser.mjs'));
  const rules = (config as { forbidden: { name: string }[] }).forbidden.map(({ name }) => name);
  assert.deepEqual(rules.filter((name) => !expected.some((line) => line.startsWith(`${name}:`))), []);
});
