/**
 * Goal: kernel policy bites inside a real clone, for every class and for every thread of a runtime that was warm long
 * before its policy came, and a policy that is not in force never proves itself. Method: small functions that try what
 * is denied; hosts that send something else than the profile says; an agent that was built to leave things out.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Configuration } from '../../src/bridge/session.ts';
import { Session } from '../../src/bridge/session.ts';
import type { Template } from '../../src/clone/template.ts';
import type { DiskRates } from '../../src/clone/vmm/contract.ts';
import { templatePolicyText } from '../../src/profile/apparmor.ts';
import { assembleFilter } from '../../src/profile/bpf.ts';
import { policyClasses } from '../../src/profile/classes.ts';
import type { PolicyClass } from '../../src/profile/classes.ts';
import { compareFacts, diskFacts, diskRatesOf, expectedFacts } from '../../src/profile/facts.ts';
import { generateProfile } from '../../src/profile/generate.ts';
import type { ThreatLevel } from '../../src/profile/levels.ts';
import type { Profile } from '../../src/profile/profile.ts';
import type { ProfileRequest } from '../../src/profile/request.ts';
import { file, granted, inClone, kernelPolicy, newIdentity, run as runIn, script } from './guest.ts';
import type { Order, Outcome } from './guest.ts';
import { clock, mebibyte, openRig, workloadId } from './rig.ts';
import type { Rig } from './rig.ts';

let rig: Rig;
let shell: Template;
let node: Template;
before(async () => {
  rig = await openRig();
  shell = await rig.template('shell');
  node = await rig.template('node');
});

function profileOf(level: ThreatLevel, policy: PolicyClass = 'compute', more: Partial<ProfileRequest> = {}): Profile {
  const image = { name: 'i', digest: `sha256:${'0'.repeat(64)}`, policy: { seccomp: policy, appArmor: policy } };
  const request: ProfileRequest = { image, limits: {}, minimumIsolation: 'tcg', ...more };
  const said = { level, wishes: [], reasons: [], destinations: [], denied: [] };
  return generateProfile({ request, codeBytes: 0, policy: said }).profile;
}

/** Runs under the whole profile, which the clone has to prove first. */
async function run(template: Template, profile: Profile, order: Order): Promise<Outcome> {
  const outcome = await runIn(rig, template, { ...order, profile, limits: profile.limits });
  const { policy } = await kernelPolicy(template, profile);
  assert.deepEqual(compareFacts(expectedFacts(profile, policy), outcome.facts), []);
  return outcome;
}

// ---- in a shell ----------------------------------------------------------------------------------------------------

/** Prints what worked. */
const attempts = (...lines: string[]): Order =>
  script(...lines.map((line) => `if (${line}) >/dev/null 2>&1; then echo '${line.replaceAll("'", '"')}'; fi`), 'true');

test('what tells about the kernel is denied, what a function needs is not', async () => {
  const { text } = await run(shell, profileOf('low'), attempts(
    'cat /proc/kallsyms', 'cat /proc/keys', 'cat /proc/timer_list', 'cat /proc/self/mem',
    'cat /proc/$$/task/$$/syscall', 'cat /proc/modules', 'cat /proc/self/pagemap',
    'cat /proc/meminfo', 'cat /proc/self/maps', 'cat /proc/cpuinfo', 'echo x > /tmp/x', 'echo x > /dev/shm/x',
    'cp /usr/bin/busybox /tmp/true && /tmp/true',
  ));
  assert.deepEqual(text.trim().split('\n'), [
    'cat /proc/meminfo', 'cat /proc/self/maps', 'cat /proc/cpuinfo', 'echo x > /tmp/x', 'echo x > /dev/shm/x',
    'cp /usr/bin/busybox /tmp/true && /tmp/true',
  ]);
});

test('hidden and read-only paths of a request: nothing of them can be opened, listed or changed', async () => {
  const paths = { hidden: ['/etc/hostname', '/tmp/hidden', '/usr/bin/jq'], readOnly: ['/tmp/kept'] };
  const { text } = await run(shell, profileOf('low', 'compute', { paths }), attempts(
    'cat /etc/hostname', 'ls /tmp/hidden', 'mkdir /tmp/hidden', 'echo x > /tmp/hidden', 'jq --version',
    'mkdir /tmp/kept', 'echo x > /tmp/kept/x', 'ln /etc/hosts /tmp/kept/y', 'cat /etc/hosts',
  ));
  assert.equal(text, 'cat /etc/hosts\n');
});

test('from elevated on, what was written cannot be executed; critical also has no /dev/shm', async () => {
  const order = attempts(
    'cp /usr/bin/busybox /tmp/true && /tmp/true', 'printf "#!/bin/sh\n" > /tmp/s && chmod 755 /tmp/s && /tmp/s',
    'echo x > /dev/shm/x', 'ls /root', 'echo x > /tmp/x',
  );
  assert.equal((await run(shell, profileOf('elevated'), order)).text, 'echo x > /dev/shm/x\necho x > /tmp/x\n');
  assert.equal((await run(shell, profileOf('critical'), order)).text, 'echo x > /tmp/x\n');
});

test('a call that only attacks need ends the process, others are refused, and the rest goes on', async () => {
  const { text, exit } = await run(shell, profileOf('low'), script(
    'mount -t tmpfs x /mnt; echo "mount $?"', 'unshare -m true 2>&1; echo "unshare $?"',
    'chroot / true 2>/dev/null; echo "chroot $?"', 'grep Seccomp: /proc/self/status',
    'cat /proc/self/attr/apparmor/current', 'echo unconfined > /proc/self/attr/apparmor/current',
    'exit 5',
  ));
  const lines = text.trim().split('\n');
  assert.equal(lines.find((line) => line.startsWith('mount')), 'mount 159');
  assert.ok(lines.includes('unshare 1') && lines.includes('chroot 1'), text);
  assert.ok(lines.includes('Seccomp:\t2') && lines.includes('mayfly (enforce)'), text);
  assert.equal(exit.exitCode, 5);
});

// ---- every class, in a runtime that was warm before ----------------------------------------------------------------

const stdin = `{"handler":"/function/h.mjs"}\n${JSON.stringify({
  runId: 'policy', deadlineMillis: Date.now() + 600_000, memoryBytes: 1, image: 'node',
})}\n{"specversion":"1.0","id":"1","source":"/t","type":"t"}`;

const PROBE = `
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import net from 'node:net';
import { Worker } from 'node:worker_threads';
import { spawnSync } from 'node:child_process';
const code = async (work) => {
  try { await work(); return 'ok'; } catch (error) { return error.code ?? String(error); }
};
const listening = async (where) => {
  const server = net.createServer().listen(where);
  await once(server, 'listening');
  server.close();
};
export default async () => {
  const worker = new Worker("const { readFileSync } = require('node:fs'); let said = 'ok';"
    + "try { readFileSync('/proc/kallsyms'); } catch (error) { said = error.code; }"
    + "require('node:worker_threads').parentPort.postMessage(said)", { eval: true });
  const [inWorker] = await once(worker, 'message');
  await worker.terminate();
  const tasks = readdirSync('/proc/self/task');
  const of = (task, name) => readFileSync('/proc/self/task/' + task + '/' + name, 'utf8');
  return {
    threads: tasks.length,
    labels: [...new Set(tasks.map((task) => of(task, 'attr/apparmor/current').trim()))],
    filters: [...new Set(tasks.map((task) => /Seccomp_filters:\\t(\\d+)/.exec(of(task, 'status'))[1]))],
    worker: inWorker,
    read: await code(() => readFileSync('/proc/kallsyms')),
    write: await code(() => writeFileSync('/etc/hosts', 'x')),
    tcp: await code(() => listening({ port: 0, host: '127.0.0.1' })),
    unix: await code(() => listening('/tmp/socket')),
    child: spawnSync('/usr/bin/true').error?.code ?? 'ok',
    mount: spawnSync('/usr/bin/mount', ['-t', 'tmpfs', 'x', '/mnt']).signal,
  };
};`;

interface Found {
  readonly threads: number;
  readonly labels: readonly string[];
}

const servers: ReadonlySet<string> = new Set(['compute', 'web', 'shell', 'database']);

for (const functionClass of policyClasses) {
  test(`class ${functionClass}: the policy holds for every thread of a warm runtime, and bites`, async () => {
    const { text, log } = await run(node, profileOf('low', functionClass), { files: [file('h.mjs', PROBE)], stdin });
    assert.notEqual(text, '', log);
    const { threads, labels, ...found } = (JSON.parse(text) as { readonly value: Found }).value;
    assert.ok(threads > 3, `${threads} threads`);
    assert.deepEqual(labels, ['mayfly (enforce)']);
    const may = servers.has(functionClass) ? 'ok' : 'EPERM';
    // Without a network, the classes that open what others have sent have no socket of it at all.
    assert.deepEqual(found, {
      filters: ['2'], worker: 'EACCES', read: 'EACCES', write: 'EACCES', tcp: may, unix: may, child: 'ok',
      mount: 'SIGSYS',
    });
  });
}

test('strict: a warm runtime still works, and cannot serve', async () => {
  const { text } = await run(node, profileOf('high'), { files: [file('h.mjs', PROBE)], stdin });
  const { value } = JSON.parse(text) as { readonly value: Record<string, unknown> };
  assert.deepEqual([value['tcp'], value['child'], value['worker']], ['EPERM', 'ok', 'EACCES']);
});

// ---- the disk ------------------------------------------------------------------------------------------------------

test('reads of the disk are as fast as the profile says, within 20 %, by bytes and by operations', async (t) => {
  // Sectors and reads that the kernel has asked the disk for, and the time, around reading what no cache has yet.
  const order = script(
    'look() { echo "$(awk \'$3 == "vda" { print $6 * 512, $4 }\' /proc/diskstats) $(cut -d" " -f1 /proc/uptime)"; }',
    'dd if=/usr/bin/node of=/dev/null bs=64k count=8 2>/dev/null; look',
    'dd if=/usr/bin/node of=/dev/null bs=64k skip=600 count="$1" 2>/dev/null; look',
  );
  const measured = async (rates: DiskRates, blocks: number): Promise<DiskRates> => {
    const argv = [...(order.argv ?? []), String(blocks)];
    const { text } = await run(node, profileOf('low'), { ...order, argv, disk: rates });
    const [[bytesBefore = 0, readsBefore = 0, from = 0] = [], [bytesAfter = 0, readsAfter = 0, to = 0] = []] =
      text.trim().split('\n').map((line) => line.split(' ').map(Number));
    const seconds = to - from;
    assert.ok(seconds > 1.5, `only ${seconds} s: too short to measure`);
    t.diagnostic(`${bytesAfter - bytesBefore} bytes, ${readsAfter - readsBefore} reads in ${seconds.toFixed(2)} s`);
    return {
      readBytesPerSecond: (bytesAfter - bytesBefore) / seconds,
      readOperationsPerSecond: (readsAfter - readsBefore) / seconds,
    };
  };
  const within = (found: number, wanted: number): void =>
    assert.ok(found > 0.8 * wanted && found < 1.2 * wanted, `${Math.round(found)} in place of ${wanted}`);
  // Slow enough that a loaded machine, which also has to decompress, keeps up.
  const byBytes = { readBytesPerSecond: mebibyte, readOperationsPerSecond: 100_000 };
  within((await measured(byBytes, 200)).readBytesPerSecond, byBytes.readBytesPerSecond);
  const byReads = { readBytesPerSecond: 1024 * mebibyte, readOperationsPerSecond: 50 };
  within((await measured(byReads, 400)).readOperationsPerSecond, byReads.readOperationsPerSecond);
});

test('what the VMM holds a clone to is read back from it, and is a fact of the proof', async () => {
  const machine = await rig.vmm.spawn(shell.state);
  try {
    assert.deepEqual(await machine.diskRates(), { readBytesPerSecond: 0, readOperationsPerSecond: 0 });
    const rates = diskRatesOf(profileOf('critical'));
    await machine.limitDisk(rates);
    assert.deepEqual(await machine.diskRates(), rates);
    const missing = compareFacts(diskFacts(rates), diskFacts({ readBytesPerSecond: 0, readOperationsPerSecond: 0 }));
    assert.equal(missing.length, 2);
  } finally {
    await machine.kill();
  }
});

// ---- a policy that is not in force does not prove itself -----------------------------------------------------------

/** Sends something else than the profile says, and returns in what the clone then differs from it. */
async function differences(change: (honest: Configuration) => Promise<Configuration>): Promise<string[]> {
  const profile = profileOf('low');
  return await inClone(rig, node, async (machine) => {
    const session = new Session({ transport: machine.bridge, clock });
    await session.adopt(newIdentity());
    const honest: Configuration = {
      limits: { ...granted, ...profile.limits }, argv: [], env: [], uid: workloadId, gid: workloadId,
      ...(await kernelPolicy(node, profile)),
    };
    const facts = await session.configure(await change(honest), []);
    return compareFacts(expectedFacts(profile, honest.policy), facts).map((line) => line.slice(0, line.indexOf(':')));
  });
}

test('a host that sends other bytes is found out, each by its own fact', async () => {
  const weaker = await node.compile(templatePolicyText);
  const all = assembleFilter(new Map(), { kind: 'allow' });
  assert.deepEqual(await differences(async (honest) => ({ ...honest, policy: weaker })), ['apparmor.policy']);
  assert.deepEqual(await differences(async (honest) => ({ ...honest, filter: all })), ['seccomp.digest']);
  assert.deepEqual(await differences(async (honest) => ({
    ...honest,
    limits: {
      ...honest.limits, memoryBytes: 2 ** 30, pids: 4000, openFiles: 4000, cpuQuotaMicros: 50_000,
      scratchBytes: 2 ** 20,
    },
  })), ['cgroup.memory.max', 'cgroup.pids.max', 'cgroup.cpu.max', 'rlimit.nofile', 'scratch.bytes']);
  assert.deepEqual(await differences(async (honest) => honest), []);
});

test('a policy that the kernel does not take, and a filter that is none, end the clone', async () => {
  const changes = [{ policy: Buffer.from('no policy') }, { filter: Buffer.alloc(8, 1) }, { filter: Buffer.alloc(5) }];
  for (const change of changes) {
    await assert.rejects(differences(async (honest) => ({ ...honest, ...change })), { code: 'E_CLONE_FAILED' });
  }
});
