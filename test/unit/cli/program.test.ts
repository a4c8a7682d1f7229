/**
 * Goal: every command line ends with the right exit code, with results on stdout alone, and with words that help.
 * Method: the whole program with an App that answers what the test says.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { App } from '../../../src/app.ts';
import type { AppObserver, Engine, RunOrder } from '../../../src/order.ts';
import type { Io } from '../../../src/cli/io.ts';
import { runProgram } from '../../../src/cli/program.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import type { RunId } from '../../../src/core/ids.ts';
import { limits } from '../../../src/core/limits.ts';
import type { Outcome } from '../../../src/stages.ts';
import { failed } from '../../../src/validate/verdict.ts';

let folder = '';
let handler = '';
let script = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-cli-'));
  handler = join(folder, 'h.mjs');
  script = join(folder, 'run.sh');
  writeFileSync(handler, 'export default () => 1;');
  writeFileSync(script, '#!/bin/sh\n', { mode: 0o755 });
  writeFileSync(join(folder, 'event.json'), '{"n":1}');
});
after(() => rmSync(folder, { recursive: true, force: true }));

const accepted: Outcome = {
  runId: '01M86TGAECYAE9HB802MYBC0ST' as RunId,
  state: 'sealed',
  verdict: { kind: 'accepted' },
  output: Buffer.from('{"big":12345678901234567890}'),
  profile: undefined,
  proof: { facts: ['uid=1000'], differences: [] },
  timeline: [{ stage: 'profile', at: 0, millis: 0.12345, attempt: 1 }],
  usage: { exitCode: 0, signal: 0, cpuMicros: 1500, memoryPeakBytes: 1024, oomKills: 0, pidsMaxHits: 0 },
  network: undefined,
  truncated: { stdout: false, stderr: false },
  attempts: [{ attempt: 1 }],
  release: { verified: true, released: [], left: [] },
  snapshot: undefined,
  evidence: undefined,
};

interface Setting {
  readonly outcome?: Outcome | MayflyError;
  readonly isolation?: 'kvm' | 'tcg';
  readonly terminal?: boolean;
  readonly colour?: boolean;
  readonly stdin?: string;
  readonly interrupted?: boolean;
  readonly log?: string;
}

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly order: RunOrder | undefined;
}

async function mayfly(args: readonly string[], setting: Setting = {}): Promise<Ended> {
  const { outcome = accepted, isolation = 'kvm', terminal = false, interrupted = false } = setting;
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  let order: RunOrder | undefined;
  const app = {
    reclaim: async () => ({ ended: [], reports: [] }),
    run: async (given: RunOrder, observer: AppObserver) => {
      order = given;
      observer.engine?.({ vmm: { isolation }, accelerator: { isolation, why: 'a test says so' } } as Engine);
      if (setting.log !== undefined) observer.stderr?.(Buffer.from(setting.log));
      if (outcome instanceof MayflyError) throw outcome;
      return outcome;
    },
  };
  const io: Io = {
    out: (text) => void out.push(Buffer.from(text)),
    err: (text) => void err.push(Buffer.from(text)),
    outIsTerminal: terminal,
    errIsTerminal: terminal,
    colour: setting.colour ?? false,
    readInput: async (bytesMax) => Buffer.from(setting.stdin ?? '').subarray(0, bytesMax),
    signal: interrupted ? AbortSignal.abort() : new AbortController().signal,
    now: () => 0,
    wallNanos: () => 0n,
    openApp: async () => app as unknown as App,
    examples: folder,
    version: '9.8.7',
  };
  const code = await runProgram(io, args);
  return { code, out: Buffer.concat(out).toString('latin1'), err: Buffer.concat(err).toString('utf8'), order };
}

function jsonOf({ out }: Ended): Record<string, unknown> & { readonly error?: Record<string, unknown> } {
  assert.equal(out.indexOf('\n'), out.length - 1, 'one line');
  return JSON.parse(out) as Record<string, unknown>;
}

// ---- help and usage -------------------------------------------------------------------------------------------------

test('help of every command has an example and exits 0', async () => {
  for (const command of ['run', 'profile', 'doctor', 'image', 'images', 'evidence', 'version']) {
    const { code, out, err } = await mayfly([command, '--help']);
    assert.deepEqual([code, err], [0, ''], command);
    assert.match(out, /Examples?:\n +mayfly /, command);
  }
  const { code, out } = await mayfly(['--help']);
  assert.equal(code, 0);
  for (const words of ['run', 'demo', 'doctor', 'Exit codes:', '130']) assert.ok(out.includes(words), words);
  assert.equal((await mayfly(['--version'])).out, '9.8.7\n');
});

const usage: readonly (readonly [args: readonly string[], said: RegExp])[] = [
  [[], /no command was given/],
  [['rnu'], /unknown command 'rnu'.*Did you mean run\?/],
  [['run', '--handlr', 'h.mjs'], /unknown option '--handlr'.*Did you mean --handler\?/],
  [['run', '--handler'], /argument missing/],
  [['run'], /nothing to run/],
  [['run', '--handler', 'HANDLER', '--exec', 'SCRIPT'], /more than one thing to run/],
  [['run', '--handler', 'HANDLER', 'more'], /takes no arguments: more/],
  [['run', '--handler', 'HANDLER', '--raw'], /--raw is for executables/],
  [['run', '--handler', 'SCRIPT'], /does not tell which image/],
  [['run', '--handler', 'HANDLER', '--accel', 'xen'], /--accel xen/],
  [['run', '--handler', 'HANDLER', '--data', '{}', '--lsm', 'selinux'], /--lsm selinux: .*apparmor only/],
  [['run', '--handler', 'HANDLER', '--timeout', 'soon'], /--timeout soon/],
  [['run', '--handler', 'HANDLER', '--memory', 'much'], /--memory much/],
  [['run', '--handler', 'HANDLER', '--cpu', 'all'], /--cpu all/],
  [['run', '--handler', 'HANDLER', '--event', 'a', '--data', 'b'], /exclude each other/],
  [['run', '--handler', 'HANDLER', '--event', '/nonexistent'], /no such file/],
  [['run', '--handler', 'HANDLER', '--event', '/'], /cannot be read \(EISDIR\)/],
  [['run', '--program', 'python3'], /absolute path in the image/],
  [['run', '--program', '/bin/sh', '--code', '.'], /--code has nothing to add/],
  [['version', 'more'], /too many arguments/],
];

function withFiles(args: readonly string[]): string[] {
  return args.map((arg) => (arg === 'HANDLER' ? handler : arg === 'SCRIPT' ? script : arg));
}

for (const [args, said] of usage) {
  test(`mayfly ${args.join(' ')}: E_USAGE, exit 2, nothing on stdout, nothing run`, async () => {
    const { code, out, err, order } = await mayfly(withFiles(args));
    assert.deepEqual([code, out, order], [2, '', undefined]);
    assert.match(err, /^error E_USAGE: The command line was not understood\n/);
    assert.match(err, said);
    assert.match(err, /\n {2}remedy \S/);
  });
}

test('with --json also an error is one object on stdout; what stands after -- is not ours', async () => {
  const ended = await mayfly(['run', '--json']);
  assert.deepEqual([ended.code, ended.err], [2, '']);
  const { ok, error } = jsonOf(ended);
  assert.deepEqual([ok, error?.['code'], error?.['blame']], [false, 'E_USAGE', 'caller']);
  const other = await mayfly(['run', '--exec', '/nonexistent', '--', '--json']);
  assert.deepEqual([other.code, other.out], [2, '']);
});

// ---- what is ordered ------------------------------------------------------------------------------------------------

test('a handler tells its language by its ending, and its event is an empty object unless there is one', async () => {
  const { order } = await mayfly(['run', '--handler', handler]);
  const found = [order?.image, order?.language, order?.workload.kind, String(order?.event), order?.limits];
  assert.deepEqual(found, [undefined, 'node', 'runtime', '{}', {}]);
  const python = join(folder, 'h.py');
  writeFileSync(python, '');
  assert.equal((await mayfly(['run', '--handler', python])).order?.language, 'python3');
  assert.equal((await mayfly(['run', '--handler', python, '--image', 'mine'])).order?.image, 'mine');
  assert.equal((await mayfly(['run', '--handler', python, '--class', 'image'])).order?.functionClass, 'image');
  assert.match((await mayfly(['run', '--handler', python, '--class', 'images'])).err, /E_USAGE.*\n.*must be one of/);
});

test('a server has a port, within the bounds, and may give out its answer raw', async () => {
  const { order } = await mayfly(['run', '--handler', handler, '--port', '8080', '--raw']);
  assert.deepEqual(order?.workload.server, { port: 8080, raw: true });
  for (const port of ['80', '65000', '8080.5', 'x', '']) {
    const { code, err } = await mayfly(['run', '--handler', handler, '--port', port]);
    assert.deepEqual([code, /E_USAGE|E_LIMIT_INVALID/.test(err)], [2, true], err);
  }
  assert.match((await mayfly(['run', '--handler', handler, '--raw'])).err, /executables and servers/);
});

test('the event comes from a file, from stdin or from the command line', async () => {
  const event = async (...args: string[]): Promise<string> => {
    return String((await mayfly(['run', '--handler', handler, ...args], { stdin: '[3]' })).order?.event);
  };
  assert.equal(await event('--event', join(folder, 'event.json')), '{"n":1}');
  assert.equal(await event('--event', '-'), '[3]');
  assert.equal(await event('--data', '"x"'), '"x"');
});

test('of an event that is too large, one byte too many is read, for the stage that refuses it', async () => {
  const large = join(folder, 'large.json');
  writeFileSync(large, '');
  truncateSync(large, limits.eventBytesMax * 2);
  const { order } = await mayfly(['run', '--handler', handler, '--event', large]);
  assert.equal(order?.event.length, limits.eventBytesMax + 1);
});

test('limits are handed on in their units', async () => {
  const args = [
    '--timeout', '2m', '--memory', '512M', '--cpu', '0.5', '--pids', '7', '--scratch', '1G', '--accel', 'kvm',
  ];
  const { order } = await mayfly(['run', '--handler', handler, ...args]);
  assert.deepEqual(order?.limits, {
    wallMillis: 120_000, memoryBytes: 512 * 1024 ** 2, cpuQuotaMicros: 50_000, pids: 7, scratchBytes: 1024 ** 3,
  });
  assert.equal(order.accelerator, 'kvm');
});

test('an executable is shipped with its arguments; a program of the image is only named', async () => {
  const shipped = (await mayfly(['run', '--exec', script, '--', '-a', 'b c'])).order;
  assert.deepEqual([shipped?.language, shipped?.workload.kind === 'executable' && shipped.workload.argv], [
    null, ['/function/run.sh', '-a', 'b c'],
  ]);
  const named = (await mayfly(['run', '--image', 'python', '--program', '/usr/bin/python3', '--raw'])).order;
  assert.deepEqual(named?.workload, { kind: 'executable', argv: ['/usr/bin/python3'], raw: true, entries: [] });
  chmodSync(script, 0o644);
  const { code, err } = await mayfly(['run', '--exec', script]);
  chmodSync(script, 0o755);
  assert.equal(code, 2);
  assert.match(err, /E_HANDLER_MISSING[\s\S]*not executable[\s\S]*chmod \+x/);
});

test('--env is repeatable, for handlers and executables, and checked before anything runs', async () => {
  const { order } = await mayfly(['run', '--handler', handler, '--env', 'A=1', '--env', 'B=x=y']);
  assert.deepEqual([...(order?.workload.env ?? [])], [['A', '1'], ['B', 'x=y']]);
  const executed = (await mayfly(['run', '--exec', script, '--env', 'A=1'])).order;
  assert.deepEqual([...(executed?.workload.env ?? [])], [['A', '1']]);
  const wrong = await mayfly(['run', '--handler', handler, '--env', 'A']);
  assert.deepEqual([wrong.code, wrong.order], [2, undefined]);
  assert.match(wrong.err, /E_USAGE[\s\S]*--env A: it has no value/);
});

test('a folder that is shipped because it is a package is named', async () => {
  const inner = join(folder, 'package');
  mkdirSync(inner);
  writeFileSync(join(inner, 'package.json'), '{}');
  writeFileSync(join(inner, 'h.mjs'), '');
  const { err, order } = await mayfly(['run', '--handler', join(inner, 'h.mjs')]);
  assert.match(err, new RegExp(`shipping ${inner}: 2 files and folders, 2 B`));
  assert.equal(order?.workload.entries.length, 2);
});

// ---- what is printed ------------------------------------------------------------------------------------------------

test('programs get the exact JSON, people an indented one, and numbers stay what they are', async () => {
  const exact = await mayfly(['run', '--handler', handler]);
  assert.deepEqual([exact.code, exact.out, exact.err], [0, '{"big":12345678901234567890}\n', '']);
  const { out } = await mayfly(['run', '--handler', handler], { terminal: true });
  assert.equal(out, '{\n  "big": 12345678901234567890\n}\n');
  const json = await mayfly(['run', '--handler', handler, '--json']);
  assert.match(json.out, /"output":\{"big":12345678901234567890\}\}\n$/);
  assert.deepEqual([jsonOf(json)['ok'], jsonOf(json)['isolation']], [true, 'kvm']);
});

test('a raw output is passed on byte for byte, and as base64 in JSON', async () => {
  const output = Buffer.from([0x7b, 0xff, 0x00, 0x1b]);
  const raw = ['run', '--program', '/bin/x', '--raw'];
  assert.equal((await mayfly(raw, { outcome: { ...accepted, output } })).out, output.toString('latin1'));
  const clearing = { ...accepted, output: Buffer.from('\u001b[2Jhi\n') };
  assert.equal((await mayfly(raw, { outcome: clearing, terminal: true })).out, '[2Jhi\n');
  const answer = jsonOf(await mayfly([...raw, '--json'], { outcome: { ...accepted, output } }));
  assert.equal(answer['outputBase64'], 'e/8AGw==');
  const number = { ...accepted, output: Buffer.from('42') };
  assert.equal(jsonOf(await mayfly([...raw, '--json'], { outcome: number }))['outputBase64'], 'NDI=');
});

test('line breaks inside a result do not break the one line of --json', async () => {
  const outcome = { ...accepted, output: Buffer.from('{\r\n "a": "\\n"\n}') };
  assert.deepEqual(jsonOf(await mayfly(['run', '--handler', handler, '--json'], { outcome }))['output'], { a: '\n' });
});

test('a log reaches a file as it is and a terminal without escape sequences', async () => {
  const log = '\u001b]0;title\u0007hello\n';
  assert.equal((await mayfly(['run', '--handler', handler], { log })).err, log);
  assert.equal((await mayfly(['run', '--handler', handler], { log, terminal: true })).err, ']0;titlehello\n');
});

test('TCG is said aloud, in one line, unless it was asked for', async () => {
  const args = ['run', '--handler', handler];
  const { err } = await mayfly(args, { isolation: 'tcg' });
  assert.match(err, /^mayfly: software emulation.*no isolation promise.*a test says so\n$/);
  assert.equal((await mayfly([...args, '--accel', 'tcg'], { isolation: 'tcg' })).err, '');
  assert.equal((await mayfly(args, { isolation: 'kvm' })).err, '');
});

test('a failed run prints its error on stderr and exits as its code says', async () => {
  const cases = [
    ['E_FUNCTION_THREW', 1], ['E_LIMIT_INVALID', 2], ['E_CLONE_FAILED', 4], ['E_GUEST_PROTOCOL', 5],
  ] as const;
  for (const [name, exit] of cases) {
    const verdict = failed(name, 'it went wrong', { detail: 'at h.mjs:1' });
    const outcome: Outcome = { ...accepted, verdict, output: undefined };
    const { code, out, err } = await mayfly(['run', '--handler', handler], { outcome });
    assert.deepEqual([code, out], [exit, '']);
    assert.match(err, new RegExp(`error ${name}: [\\s\\S]*it went wrong[\\s\\S]*at h.mjs:1[\\s\\S]*remedy`));
    const json = jsonOf(await mayfly(['run', '--handler', handler, '--json'], { outcome }));
    assert.deepEqual([json['ok'], json.error?.['code'], json.error?.['detail']], [false, name, 'at h.mjs:1']);
    assert.equal('output' in json, false);
  }
});

test('what is left behind and what was dropped is said', async () => {
  const outcome: Outcome = {
    ...accepted, state: 'quarantined', truncated: { stdout: false, stderr: true },
    release: { verified: false, released: [], left: ['machine 4711: alive'] },
  };
  const { err } = await mayfly(['run', '--handler', handler], { outcome });
  assert.match(err, /stderr was longer than its limit/);
  assert.match(err, /ALARM: still there after release: machine 4711: alive/);
});

test('--trace shows the steps, on stderr', async () => {
  const { out, err } = await mayfly(['run', '--handler', handler, '--trace']);
  assert.equal(out, '{"big":12345678901234567890}\n');
  const shown = [/profile +0\.1 ms/, /1 facts.*equal to the profile/, /1\.5 ms CPU/, /verified: nothing left/];
  for (const words of shown) assert.match(err, words);
});

test('colours are for terminals', async () => {
  assert.match((await mayfly(['rnu'], { colour: true })).err, /\u001b\[31m/);
  assert.doesNotMatch((await mayfly(['rnu'])).err, /\u001b/);
});

test('what fails because of Ctrl-C is an interruption, whatever it says', async () => {
  const outcome = new MayflyError('E_QEMU_MISSING', 'qemu --version was killed');
  const { code, err } = await mayfly(['run', '--handler', handler], { outcome, interrupted: true });
  assert.equal(code, 130);
  assert.match(err, /E_INTERRUPTED/);
  assert.equal((await mayfly(['run', '--handler', handler], { outcome })).code, 3);
});
