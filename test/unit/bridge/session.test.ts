/**
 * Goal: one clone's exchange, from ADOPT to EXIT, as docs/FORMATS.md orders it.
 * Method: a scripted guest says each side's part; what the host writes is read back with the codec.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '../../../src/core/limits.ts';
import { frameTypes, streams } from '../../../src/bridge/frame.ts';
import { decodeMessage } from '../../../src/bridge/message.ts';
import type { CodeEntry } from '../../../src/bridge/session.ts';
import { Session } from '../../../src/bridge/session.ts';
import {
  adopted, adoptedRig, assertFailed, cloneNonce, configuration, executingRig, exit, facts, finishRun, freshRig,
  identity, ManualClock, provedRig, ScriptedGuest, settle, Transport,
} from './rig.ts';

const code: readonly CodeEntry[] = [
  { kind: 'file', path: 'h.mjs', mode: 0o644, content: Buffer.from('export default () => 1;') },
  { kind: 'folder', path: 'lib', mode: 0o755 },
  { kind: 'file', path: 'lib/empty', mode: 0o600, content: Buffer.alloc(0) },
  { kind: 'link', path: 'lib/h', target: '../h.mjs' },
];

test('a whole exchange: adopt, configure, execute', async () => {
  const { session, guest, clock, transport } = freshRig();
  assert.deepEqual(session.status, { state: 'fresh' });
  const adopting = session.adopt(identity);
  assert.deepEqual(session.status, { state: 'adopting' });
  assert.deepEqual(guest.heard(), ['ADOPT']);
  guest.say('ADOPTED', adopted);
  assert.deepEqual(await adopting, adopted);
  assert.deepEqual(session.status, { state: 'adopted', adopted });

  const configuring = session.configure(configuration, code);
  assert.deepEqual(guest.heard(), ['CONFIGURE', 'FILE', 'DATA 5 23', 'FILE', 'FILE', 'FILE', 'END 5']);
  guest.say('PROOF', { fact: facts });
  assert.deepEqual(await configuring, facts);
  assert.deepEqual(session.status, { state: 'proved', facts });

  const logs: string[] = [];
  const executing = session.execute({
    stdin: Buffer.from('{"id":"1"}'),
    onStdout: (chunk) => logs.push(`out ${chunk}`),
    onStderr: (chunk) => logs.push(`err ${chunk}`),
    wallMillis: 1000,
  });
  assert.deepEqual(guest.heard(), ['START', 'DATA 4 10', 'END 4']);
  clock.advance(5);
  guest.data('stdout', 'a');
  guest.data('stderr', 'b');
  guest.data('output', '{"ok":');
  guest.data('output', 'true}');
  guest.end('stderr', 1);
  guest.end('stdout', 1, true);
  guest.end('output', 11);
  await settle();
  clock.advance(7);
  guest.say('EXIT', exit);
  const execution = await executing;
  assert.deepEqual(execution, {
    exit,
    output: Buffer.from('{"ok":true}'),
    outputTruncated: false,
    stdout: { bytes: 1, truncated: true },
    stderr: { bytes: 1, truncated: false },
    timings: { stdinMillis: 0, firstDataMillis: 5, exitMillis: 12 },
  });
  assert.deepEqual(logs, ['out a', 'err b']);
  assert.equal(session.status.state, 'finished');
  assert.equal(clock.pending, 0);
  assert.ok(transport.isPaused(), 'the transport is still read');
});

test('ADOPT carries the nonce and the clock of the moment it is written; every later frame has the nonce', async () => {
  const { session, guest, clock } = freshRig();
  clock.advance(1500);
  session.adopt({ ...identity, clockUnixNanos: () => clock.wallNanos() });
  session.configure(configuration, []);
  const [adopt, ...rest] = guest.take();
  assert.ok(adopt !== undefined && rest.length === 2);
  for (const frame of [adopt, ...rest]) assert.equal(frame.nonce, cloneNonce);
  assert.deepEqual([adopt, ...rest].map(({ sequence }) => sequence), [0, 1, 2]);
  const message = decodeMessage(adopt.type, adopt.payload);
  assert.ok(message.name === 'ADOPT');
  assert.equal(message.fields.clockUnixNanos, 1_764_000_001_500_000_000n);
  assert.deepEqual(message.fields.entropy, identity.entropy);
});

test('adopt and configure may be called back to back: both are written at once, both resolve', async () => {
  const { session, guest } = freshRig();
  const both = Promise.all([session.adopt(identity), session.configure(configuration, code)]);
  assert.deepEqual(guest.heard().slice(0, 3), ['ADOPT', 'CONFIGURE', 'FILE']);
  guest.say('ADOPTED', adopted);
  await settle();
  assert.equal(session.status.state, 'configuring');
  guest.say('PROOF', { fact: facts });
  assert.deepEqual(await both, [adopted, facts]);
});

test('files arrive as they are: kind, mode, size, target, content', async () => {
  const rig = await adoptedRig();
  rig.guest.take();
  rig.session.configure(configuration, code);
  const frames = rig.guest.take();
  const files = frames.filter(({ type }) => type === frameTypes.FILE).map(({ type, payload }) => {
    const message = decodeMessage(type, payload);
    return message.name === 'FILE' ? message.fields : undefined;
  });
  assert.deepEqual(files, [
    { path: 'h.mjs', kind: 0, mode: 0o644, size: 23, target: '' },
    { path: 'lib', kind: 1, mode: 0o755, size: 0, target: '' },
    { path: 'lib/empty', kind: 0, mode: 0o600, size: 0, target: '' },
    { path: 'lib/h', kind: 2, mode: 0o777, size: 0, target: '../h.mjs' },
  ]);
  const sent = frames.filter(({ type }) => type === frameTypes.DATA);
  assert.deepEqual(Buffer.concat(sent.map(({ payload }) => payload)).toString(), 'export default () => 1;');
  assert.equal(frames.at(-1)?.stream, streams.code);
});

test('frames that are split at every byte, or come all at once, end the same', async () => {
  for (const size of [1, 7, 24, 25, 100_000]) {
    const rig = await executingRig();
    const { guest, transport, execution } = rig;
    const bytes = Buffer.concat([
      guest.make(frameTypes.DATA, streams.output, Buffer.from('{"ok":true,"value":"0123456789"}')),
      ...[1, 2, 3].map((stream) => {
        const end = Buffer.alloc(9);
        if (stream === 3) end.writeUInt8(32, 0);
        return guest.make(frameTypes.END, stream, end);
      }),
    ]);
    for (let at = 0; at < bytes.length; at += size) {
      transport.feed(bytes.subarray(at, at + size));
      await new Promise((resolve) => setImmediate(resolve));
    }
    guest.say('EXIT', exit);
    assert.equal((await execution).output.toString(), '{"ok":true,"value":"0123456789"}', `chunks of ${size}`);
  }
});

test('EXIT is the last word: what follows it is not read, in the same chunk or later', async () => {
  const { guest, transport, execution, session } = await executingRig();
  finishRun(guest);
  transport.feed(Buffer.from('garbage'));
  assert.equal((await execution).exit.exitCode, 0);
  transport.feed(Buffer.alloc(100_000));
  await settle();
  assert.equal(session.status.state, 'finished');
  assert.ok(transport.isPaused());
});

test('an execution may finish before the guest has taken all of stdin', async () => {
  const { guest, execution } = await executingRig({ stdin: Buffer.alloc(1_000_000) });
  finishRun(guest);
  assert.equal((await execution).timings.stdinMillis, undefined);
});

test('calls in the wrong state are refused and change nothing', async () => {
  const fresh = freshRig();
  await assert.rejects(fresh.session.configure(configuration, []), { code: 'E_INTERNAL' });
  await assert.rejects(fresh.session.execute({ stdin: Buffer.alloc(0), wallMillis: 1 }), { code: 'E_INTERNAL' });
  await assert.rejects(fresh.session.adopt({ ...identity, nonce: 0n }), { code: 'E_INTERNAL' });
  assert.equal(fresh.session.status.state, 'fresh');
  const proved = await provedRig();
  await assert.rejects(proved.session.adopt(identity), { code: 'E_INTERNAL' });
  await assert.rejects(proved.session.configure(configuration, []), { code: 'E_INTERNAL' });
  assert.equal(proved.session.status.state, 'proved');
  const executing = await executingRig();
  await assert.rejects(executing.session.execute({ stdin: Buffer.alloc(0), wallMillis: 1 }), /while .* executing/);
  finishRun(executing.guest);
  await executing.execution;
});

test('arguments that no message can carry are the caller\'s error, before anything is sent', async () => {
  for (const argv of [['a\0b'], [`${'x'.repeat(40_000)}`], Array.from({ length: 600 }, () => 'a'), ['\ud800']]) {
    const { session, guest } = await adoptedRig();
    guest.take();
    await assert.rejects(session.configure({ ...configuration, argv }, []), { code: 'E_LIMIT_INVALID' });
    assert.deepEqual(guest.take(), []);
    assert.equal(session.status.state, 'adopted');
  }
});

test('a file that no message can carry ends the session as a bug of the host, not as a hang', async () => {
  const rig = await adoptedRig();
  const configuring = rig.session.configure(configuration, [{ kind: 'folder', path: 'a\0b', mode: 0o755 }]);
  await assert.rejects(configuring, { code: 'E_INTERNAL' });
  await assertFailed(rig, { code: 'E_INTERNAL', reason: /FILE\.path/ });
});

test('a callback that throws ends the session as a bug of the host', async () => {
  const rig = await executingRig({ onStdout: () => { throw new Error('full disk'); } });
  rig.guest.data('stdout', 'x');
  await assert.rejects(rig.execution, { code: 'E_INTERNAL' });
  await assertFailed(rig, { code: 'E_INTERNAL', reason: /full disk/ });
});

test('close ends what is under way as interrupted, twice is once, and a finished session stays finished', async () => {
  const rig = await executingRig();
  rig.session.close();
  rig.session.close();
  await assert.rejects(rig.execution, { code: 'E_INTERRUPTED' });
  await assertFailed(rig, { code: 'E_INTERRUPTED' });
  assert.ok(rig.transport.destroyed);
  await assert.rejects(rig.session.adopt(identity), { code: 'E_INTERRUPTED' });

  const finished = await executingRig();
  finishRun(finished.guest);
  await finished.execution;
  finished.session.close();
  assert.equal(finished.session.status.state, 'finished');
  assert.equal(finished.clock.pending, 0);
});

test('close inside a callback stops at once', async () => {
  const seen: string[] = [];
  const rig = await executingRig({ onStdout: (chunk) => { seen.push(String(chunk)); rig.session.close(); } });
  // One chunk: the second frame is already decoded when the first one is handled.
  const frames = ['a', 'b'].map((text) => rig.guest.make(frameTypes.DATA, streams.stdout, Buffer.from(text)));
  rig.transport.feed(Buffer.concat(frames));
  await assertFailed(rig, { code: 'E_INTERRUPTED' });
  assert.deepEqual(seen, ['a']);
});

test('a transport that is already gone fails the session instead of leaving it waiting', async () => {
  const transport = new Transport();
  transport.destroy();
  const session = new Session({ transport, clock: new ManualClock() });
  assert.equal((await session.failed).code, 'E_GUEST_DIED');
  await assert.rejects(session.adopt(identity), { code: 'E_GUEST_DIED' });
});

test('a transport that somebody has paused flows again', async () => {
  const transport = new Transport();
  transport.pause();
  const session = new Session({ transport, clock: new ManualClock() });
  const adopting = session.adopt(identity);
  new ScriptedGuest(transport).say('ADOPTED', adopted);
  assert.deepEqual(await adopting, adopted);
});

test('rejections that nobody awaits are not unhandled', async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => { unhandled.push(reason); };
  process.on('unhandledRejection', note);
  const { session, transport } = freshRig();
  void session.adopt(identity);
  void session.configure(configuration, code);
  transport.destroy(new Error('ECONNRESET'));
  await settle();
  void session.execute({ stdin: Buffer.alloc(0), wallMillis: 1 });
  await settle();
  process.off('unhandledRejection', note);
  assert.deepEqual(unhandled, []);
  assert.equal(session.status.state, 'failed');
});

// ---- a function that is loaded before its event ----------------------------------------------------------------

test('start sends the function, execute the event; early logs wait for somebody who wants them', async () => {
  const { session, guest, clock } = await provedRig();
  guest.heard();
  const spoken = session.start(Buffer.from('head\n'));
  assert.deepEqual(guest.heard(), ['START', 'DATA 4 5'], 'no END: the event is to come');
  assert.equal(session.status.state, 'started');
  guest.data('stdout', 'early');
  guest.data('output', ' ');
  await spoken;
  assert.deepEqual(guest.heard(), [], 'no credit before there is an event');
  const logs: string[] = [];
  const executing = session.execute({
    stdin: Buffer.from('event'), wallMillis: 1000, onStdout: (chunk) => logs.push(String(chunk)),
  });
  assert.deepEqual(logs, ['early']);
  assert.deepEqual(guest.heard(), ['DATA 4 5', 'END 4']);
  guest.data('output', '{}');
  guest.end('stdout', 5);
  guest.end('stderr', 0);
  guest.end('output', 3);
  guest.say('EXIT', exit);
  assert.equal(String((await executing).output), ' {}');
  assert.equal(clock.pending, 0);
});

test('a function that ended while it was loaded answers its event with that end', async () => {
  const { session, guest } = await provedRig();
  const spoken = session.start(Buffer.from('head\n'));
  guest.data('output', 'no');
  for (const [name, bytes] of [['stdout', 0], ['stderr', 0], ['output', 2]] as const) guest.end(name, bytes);
  guest.say('EXIT', exit);
  await spoken;
  assert.equal(session.status.state, 'finished');
  const stdin = Buffer.from('event');
  assert.equal(String((await session.execute({ stdin, wallMillis: 1000 })).output), 'no');
  await assert.rejects(session.execute({ stdin, wallMillis: 1000 }), /while .* finished/, 'but only once');
});

test('a guest that floods before its event breaks the rules', async () => {
  const { session, guest } = await provedRig();
  const spoken = session.start(Buffer.alloc(0));
  for (let sent = 0; sent <= limits.streamWindowBytes; sent += 32_768) guest.data('stdout', 'x'.repeat(32_768));
  await spoken;
  await assert.rejects(session.execute({ stdin: Buffer.alloc(0), wallMillis: 1 }), { code: 'E_GUEST_PROTOCOL' });
});
