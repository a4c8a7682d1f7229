/**
 * The agent in real clones. Goal: what the proof says is true, limits hold and say so, nothing but the workload's own
 * files and processes can be reached, and a host that breaks the rules gets a FAULT, never a hang. Method: small shell
 * functions as the workload, each in a clone of its own.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { frameTypes, streams } from '../../src/bridge/frame.ts';
import type { Message } from '../../src/bridge/message.ts';
import { encodeEnd } from '../../src/bridge/streams.ts';
import type { Template } from '../../src/clone/template.ts';
import { MayflyError } from '../../src/core/errors.ts';
import { compareFacts, expectedFacts } from '../../src/profile/facts.ts';
import { generateProfile } from '../../src/profile/generate.ts';
import { file, granted, inClone, kernelPolicy, RawHost, run as runIn, script } from './guest.ts';
import type { Order, Outcome } from './guest.ts';
import { mebibyte, openRig, workloadId } from './rig.ts';
import type { Rig } from './rig.ts';

let rig: Rig;
let template: Template;
let configuration: Message<'CONFIGURE'>;

before(async () => {
  rig = await openRig();
  template = await rig.template('shell');
  const ids = { uid: workloadId, gid: workloadId };
  configuration = { ...granted, argv: ['/usr/bin/true'], env: [], ...ids, ...(await kernelPolicy(template)) };
});

const run = (order: Order): Promise<Outcome> => runIn(rig, template, order);

async function failure(order: Order): Promise<MayflyError> {
  const thrown = await run(order).then(() => undefined, (error: unknown) => error);
  assert.ok(thrown instanceof MayflyError, `no failure but ${String(thrown)}`);
  return thrown;
}

// ---- what is promised -----------------------------------------------------------------------------------------------

test('the proof of a default profile has no difference', async () => {
  const { profile } = generateProfile({
    request: {
      image: { name: 'shell', digest: 'sha256:00' }, limits: {}, minimumIsolation: 'tcg',
    } as unknown as Parameters<typeof generateProfile>[0]['request'],
    codeBytes: 0,
  });
  const { facts } = await run({ ...script('true'), limits: profile.limits, profile });
  assert.deepEqual(compareFacts(expectedFacts(profile, (await kernelPolicy(template, profile)).policy), facts), []);
});

test('the identity that was given is the one that a workload sees', async () => {
  const { given, adopted, text } = await run(script(
    'cat /etc/machine-id /proc/sys/kernel/random/boot_id; hostname; date +%s; grep -c "$(hostname)" /etc/hosts',
  ));
  const [machineId, bootId, hostname, seconds, hosts] = text.split('\n');
  assert.deepEqual([machineId, bootId, hostname, hosts], [given.machineId, given.bootId, given.hostname, '1']);
  assert.equal(adopted.reseeded, 1);
  assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 10);
});

test('an executable gets the event on stdin; output, log, status and usage come out', async () => {
  const { text, log, exit, stdout } = await run({
    ...script('cat', 'echo "log of $(id -u)" >&2', 'pwd >&2', 'exit 7'), stdin: '{"a":1}',
  });
  assert.deepEqual([text, log, stdout.bytes], ['{"a":1}', `log of ${workloadId}\n/function\n`, 0]);
  assert.deepEqual([exit.exitCode, exit.signal, exit.oomKills, exit.pidsMaxHits], [7, 0, 0, 0]);
  assert.ok(exit.cpuMicros > 0 && exit.memoryPeakBytes > 0);
});

test('an end by a signal is told', async () => {
  assert.deepEqual((await run(script('kill -SEGV $$'))).exit.signal, 11);
});

test('megabytes in both directions keep their bytes and their order', async () => {
  const stdin = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i.toString(36)).join(' '));
  const { output } = await run({ argv: ['/usr/bin/cat'], stdin });
  assert.ok(stdin.equals(output), `${output.length} of ${stdin.length} bytes came back`);
});

test('a workload that reads nothing of a large event ends all the same', async () => {
  const { text } = await run({ ...script('echo done'), stdin: Buffer.alloc(4 * mebibyte, 120) });
  assert.equal(text, 'done\n');
});

test('files, folders and links arrive as they were shipped, readable and read-only', async () => {
  const { text, exit } = await run({
    argv: ['/function/f.sh'],
    files: [
      ...(script(
        'cd /function; cat lib/deep/secret.txt link.txt; stat -c "%U %a" lib/deep/secret.txt lib; wc -c < big.bin',
        'for attempt in "echo x > new" "rm f.sh" "chmod 777 lib" "mkdir d" "ln -s a b"; do',
        '  sh -c "$attempt" 2>/dev/null && echo "could: $attempt"',
        'done; true',
      ).files ?? []),
      { kind: 'folder', path: 'lib', mode: 0o700 },
      { kind: 'folder', path: 'lib/deep', mode: 0o755 },
      file('lib/deep/secret.txt', 'secret\n', 0o600),
      file('big.bin', Buffer.alloc(3 * mebibyte)),
      file('empty', ''),
      { kind: 'link', path: 'link.txt', target: 'lib/deep/secret.txt' },
    ],
  });
  assert.equal(exit.exitCode, 0);
  assert.equal(text, `secret\nsecret\nroot 644\nroot 755\n${3 * mebibyte}\n`);
});

for (const path of ['../out', '/etc/x', 'a/../../b', '.', 'link/x', 'none/x', 'f.sh']) {
  test(`no file gets to ${path}`, async () => {
    const { code, message } = await failure({
      argv: ['/function/f.sh'],
      files: [file('f.sh', ''), { kind: 'link', path: 'link', target: '/tmp' }, file(path, 'x')],
    });
    assert.equal(code, 'E_CLONE_FAILED', message);
  });
}

test('a program that cannot be executed is the function\'s fault, and why is told', async () => {
  const missing = await failure({ argv: ['/function/none'] });
  assert.deepEqual([missing.code, /none: No such file/.test(missing.message)], ['E_FUNCTION_LOAD', true]);
  const denied = await failure({ argv: ['/function/f'], files: [file('f', '#!/bin/sh\n', 0o644)] });
  assert.deepEqual([denied.code, /Permission denied/.test(denied.message)], ['E_FUNCTION_LOAD', true]);
  const foreign = await failure({ argv: ['/function/f'], files: [file('f', 'no program', 0o755)] });
  assert.deepEqual([foreign.code, /Exec format error/.test(foreign.message)], ['E_FUNCTION_LOAD', true]);
});

// ---- limits ---------------------------------------------------------------------------------------------------------

test('C2: memory beyond the limit is an OOM kill that is counted, and the whole workload ends', async () => {
  const { exit } = await run({
    // tail keeps the whole line in memory.
    ...script('sleep 100 & tail -c 200000000 /dev/zero'), limits: { memoryBytes: 96 * mebibyte },
  });
  assert.ok(exit.oomKills > 0);
  assert.equal(exit.signal, 9);
  assert.ok(exit.memoryPeakBytes <= 96 * mebibyte);
});

test('C1: a fork bomb hits its limit, and nothing of it is left', async () => {
  const { text, exit } = await run({
    ...script('i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done 2>/dev/null; echo end'), limits: { pids: 20 },
  });
  assert.equal(exit.pidsMaxHits > 0, true);
  assert.ok(text === 'end\n' || exit.exitCode !== 0);
});

test('C3: a full scratch says ENOSPC, wherever it is filled', async () => {
  const { text } = await run({
    ...script(
      'for path in /tmp/x /dev/shm/x; do',
      '  dd if=/dev/zero of=$path bs=1M count=100 2>&1 | grep -o "No space left"; wc -c < $path; rm $path',
      'done',
    ),
    limits: { scratchBytes: 16 * mebibyte },
  });
  const lines = text.trim().split('\n');
  assert.deepEqual([lines[0], lines[2]], ['No space left', 'No space left']);
  for (const bytes of [lines[1], lines[3]]) assert.ok(Number(bytes) > 15 * mebibyte && Number(bytes) <= 16 * mebibyte);
});

test('C4: files without content end at the inodes', async () => {
  const { text } = await run({
    ...script('cd /tmp; seq 1 60000 | xargs touch 2>&1 | grep -om1 "No space left"; true'),
    limits: { scratchBytes: 16 * mebibyte },
  });
  assert.equal(text, 'No space left\n');
});

test('C4: open files end at the limit', async () => {
  const { text } = await run({ ...script('ulimit -n; ulimit -Hn; ulimit -c'), limits: { openFiles: 99 } });
  assert.equal(text, '99\n99\n0\n');
});

test('C5: a spinning workload is throttled to its share of the processor', async () => {
  const { exit, timings } = await run({
    ...script('timeout 2 sh -c "while :; do :; done"; true'), limits: { cpuQuotaMicros: 10_000 },
  });
  assert.ok(exit.cpuMicros < 0.3 * timings.exitMillis * 1000, `${exit.cpuMicros} µs in ${timings.exitMillis} ms`);
});

test('C6: a log beyond its limit is dropped, marked, and does not hold up the result', async () => {
  const { log, stderr, text } = await run({
    ...script('yes | head -c 3000000 >&2; echo result'), limits: { stderrBytes: 100_000 },
  });
  assert.deepEqual([log.length, stderr, text], [100_000, { bytes: 100_000, truncated: true }, 'result\n']);
});

test('F5: a result beyond its limit ends the run, marked', async () => {
  const { output, outputTruncated } = await run({ ...script('yes; echo never'), limits: { outputBytes: 100_000 } });
  assert.deepEqual([output.length, outputTruncated], [100_000, true]);
});

test('a result of exactly the limit is whole', async () => {
  const limits = { outputBytes: 100_000 };
  const { output, outputTruncated } = await run({ ...script('yes | head -c 100000'), limits });
  assert.deepEqual([output.length, outputTruncated], [100_000, false]);
});

test('what is left in the background is ended with the program', async () => {
  const { text, timings } = await run(script('(sleep 50; echo late) & (trap "" TERM HUP; sleep 60) & echo now'));
  assert.equal(text, 'now\n');
  assert.ok(timings.exitMillis < 20_000);
});

// ---- what cannot be reached -----------------------------------------------------------------------------------------

test('the agent, its files, its port, its devices and the kernel are out of reach', async () => {
  const attempts = [
    'cat /proc/1/mem', 'cat /proc/1/environ', 'ls /proc/1/fd/', 'ls /proc/1/root/', 'kill -9 1', 'chroot / true',
    'mount -t tmpfs x /mnt', 'umount /tmp', 'mknod /tmp/v b 254 0', 'dmesg', 'cat /proc/kcore | head -c1 | grep .',
    'cat /proc/kallsyms | grep -v "^0000000000000000" | grep .', 'echo x > /proc/sysrq-trigger', 'hostname other',
    'echo 0 > /proc/sys/kernel/printk', 'echo x > /proc/sys/kernel/core_pattern',
    'date -s 2020-01-01; date | grep 2020', 'nice -n -5 true', 'unshare -U true', 'su -c true', 'cat /dev/vda',
    'ls /dev/vport*', 'ls /sys/*', 'ls /scratch', 'ls /image', 'reboot -f', 'insmod /tmp/x.ko', 'ip link set lo down',
    'echo 1 > /proc/self/oom_score_adj', 'cat /proc/timer_list', 'cat /proc/1/maps | grep .',
  ];
  const lines = attempts.map((attempt) => `if (${attempt}) >/dev/null 2>&1; then echo 'could: ${attempt}'; fi`);
  const strangers = 'ps | grep -v "ps\\|grep\\|PID\\|f.sh" | grep -v keeper';
  const { text, exit } = await run(script(...lines, strangers, 'echo end'));
  assert.deepEqual([text, exit.exitCode, exit.signal], ['end\n', 0, 0]);
});

test('a set-user-ID program gains nothing', async () => {
  const { text } = await run(script(
    'cp /usr/bin/busybox /tmp/busybox; chmod 4755 /tmp/busybox; /tmp/busybox id -u',
    'grep -E "^(Cap|NoNew)" /proc/self/status',
  ));
  assert.equal(text.split('\n')[0], String(workloadId));
  assert.match(text, /CapBnd:\t0000000000000000\n/);
  assert.match(text, /NoNewPrivs:\t1\n/);
});

// ---- a host that breaks the rules -----------------------------------------------------------------------------------


const nothing = encodeEnd({ totalBytes: 0, truncated: false });

const mischief: readonly (readonly [what: string, send: (host: RawHost) => void, said: RegExp])[] = [
  ['noise', (host) => host.write(Buffer.alloc(64, 0xa5)), /frame: magic/],
  ['a length over the limit', (host) => {
    const bytes = host.frame(frameTypes.START, 0, Buffer.alloc(0));
    bytes.writeUInt32LE(0xffff_ffff, 4);
    host.write(bytes);
  }, /frame: length/],
  ['another nonce', (host) => host.write(host.frame(frameTypes.START, 0, Buffer.alloc(0), 1n)), /frame: nonce/],
  ['START before CONFIGURE', (host) => host.send('START', {}), /order/],
  ['an event before START', (host) => {
    host.send('CONFIGURE', configuration);
    host.write(host.frame(frameTypes.DATA, streams.stdin, Buffer.from('x')));
  }, /order/],
  ['code without a file', (host) => {
    host.send('CONFIGURE', configuration);
    host.write(host.frame(frameTypes.DATA, streams.code, Buffer.from('x')));
  }, /belong to no file/],
  ['a wrong total', (host) => {
    host.send('CONFIGURE', configuration);
    host.write(host.frame(frameTypes.END, streams.code, encodeEnd({ totalBytes: 1, truncated: false })));
  }, /end-total/],
  ['root as the workload', (host) => host.send('CONFIGURE', { ...configuration, uid: 0 }), /another user/],
  ['a processor share that the kernel refuses', (host) => {
    host.send('CONFIGURE', { ...configuration, cpuQuotaMicros: 1 });
  }, /cpu\.max/],
  ['a scratch without room', (host) => host.send('CONFIGURE', { ...configuration, scratchBytes: 0 }), /scratch/],
];
for (const [what, send, said] of mischief) {
  test(`a host's mistake is a FAULT: ${what}`, async () => {
    await inClone(rig, template, async (machine) => {
      const host = new RawHost(machine.bridge);
      host.adopt();
      assert.equal((await host.next()).name, 'ADOPTED');
      send(host);
      for (;;) {
        const message = await host.next();
        if (message.name === 'PROOF') continue;
        assert.equal(message.name, 'FAULT');
        assert.match(message.fields.message, said);
        return;
      }
    });
  });
}

test('a host that never reads and never grants credit does not make the agent lose a byte or a beat', async () => {
  await inClone(rig, template, async (machine) => {
    const host = new RawHost(machine.bridge);
    host.adopt();
    host.send('CONFIGURE', { ...configuration, argv: ['/usr/bin/yes'] });
    host.write(host.frame(frameTypes.END, streams.code, nothing));
    host.send('START', {});
    assert.deepEqual([(await host.next()).name, (await host.next()).name], ['ADOPTED', 'PROOF']);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    // Still there, still judging: what follows is a mistake, and it says so.
    host.send('START', {});
    const message = await host.next();
    assert.equal(message.name === 'FAULT' && /order/.test(message.fields.message), true);
  });
});
