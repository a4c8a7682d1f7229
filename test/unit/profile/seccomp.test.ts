/**
 * Goal: a filter lets through exactly what its class may call, on this architecture and by this ABI only. Method: the
 * kernel's interpreter of classic BPF, written again, runs every number through every filter.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assembleFilter, X32_BIT } from '../../../src/profile/bpf.ts';
import type { Verdict } from '../../../src/profile/bpf.ts';
import { policyClasses } from '../../../src/profile/classes.ts';
import { seccompFilter, syscallLevels } from '../../../src/profile/seccomp.ts';
import { syscallNumbers } from '../../../src/profile/syscalls.ts';

const X86_64 = 0xc000_003e;
const I386 = 0x4000_0003;
const EPERM = 'errno 1';
const ENOSYS = 'errno 38';

interface Call {
  readonly number: number;
  readonly architecture?: number;
  readonly arguments?: readonly number[];
}

/** What the kernel would do: struct seccomp_data against the program, instruction by instruction. */
function verdictOf(program: Buffer, { number, architecture = X86_64, arguments: given = [] }: Call): string {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(number >>> 0, 0);
  data.writeUInt32LE(architecture, 4);
  for (const [index, value] of given.entries()) data.writeBigUInt64LE(BigInt(value), 16 + 8 * index);
  let accumulator = 0;
  for (let at = 0; ; at += 8) {
    assert.ok(at < program.length, 'the program does not end');
    const [code, jt, jf] = [program.readUInt16LE(at), program.readUInt8(at + 2), program.readUInt8(at + 3)];
    const k = program.readUInt32LE(at + 4);
    const jump = (taken: boolean): void => void (at += 8 * (taken ? jt : jf));
    if (code === 0x20) accumulator = data.readUInt32LE(k);
    else if (code === 0x05) at += 8 * k;
    else if (code === 0x15) jump(accumulator === k);
    else if (code === 0x35) jump(accumulator >= k);
    else if (code === 0x45) jump((accumulator & k) !== 0);
    else if (code === 0x06) return returned(k);
    else assert.fail(`no such instruction: ${code}`);
  }
}

function returned(value: number): string {
  if (value === 0x7fff_0000) return 'allow';
  if (value === 0x8000_0000) return 'kill';
  assert.equal(value & 0xffff_0000, 0x0005_0000);
  return `errno ${value & 0xffff}`;
}

const NUMBERS_MAX = 600;
const number = (name: string): number => syscallNumbers.get(name) ?? assert.fail(`no call ${name}`);
const of = (filter: Buffer, name: string, ...given: number[]): string =>
  verdictOf(filter, { number: number(name), arguments: given });

test('the table has the numbers of the kernel', () => {
  const known = { read: 0, mmap: 9, clone: 56, execve: 59, ptrace: 101, seccomp: 317, rseq: 334, pidfd_send_signal: 424,
    clone3: 435, set_mempolicy_home_node: 450 };
  for (const [name, value] of Object.entries(known)) assert.equal(number(name), value, name);
  assert.equal(syscallNumbers.size, 362);
});

const every = policyClasses.flatMap((functionClass) => syscallLevels.flatMap((level) => [true, false].map((network) => {
  return { functionClass, level, network, ...seccompFilter({ functionClass, level, network }) };
})));

for (const { functionClass, level, network, program } of every) {
  test(`${functionClass}, ${level}, ${network ? 'with' : 'without'} network: every call has its verdict`, () => {
    assert.ok(program.length / 8 < 1000);
    let allowed = 0;
    for (let each = 0; each < NUMBERS_MAX; each++) {
      const verdict = verdictOf(program, { number: each });
      assert.ok(['allow', 'kill', EPERM, ENOSYS].includes(verdict), `${each}: ${verdict}`);
      if (verdict === 'allow') allowed += 1;
      // What nobody has named is refused, also what younger kernels add.
      if (![...syscallNumbers.values()].includes(each)) assert.equal(verdict, EPERM, String(each));
      for (const architecture of [I386, 0, 0xc000_00b7]) {
        assert.equal(verdictOf(program, { number: each, architecture }), 'kill');
      }
      assert.equal(verdictOf(program, { number: each + X32_BIT }), 'kill');
    }
    assert.ok(allowed > 150 && allowed < 300, `${allowed} calls are allowed`);
    assert.equal(verdictOf(program, { number: -1 }), 'kill');
    for (const name of ['ptrace', 'bpf', 'mount', 'init_module', 'kexec_load', 'process_vm_writev', 'setns']) {
      assert.equal(of(program, name), 'kill', name);
    }
    for (const name of ['unshare', 'keyctl', 'perf_event_open', 'settimeofday', 'chroot', 'quotactl', 'acct']) {
      assert.equal(of(program, name), EPERM, name);
    }
    assert.deepEqual([of(program, 'clone3'), of(program, 'io_uring_setup')], [ENOSYS, ENOSYS]);
    // A thread of glibc, a fork, and each kind of new namespace.
    assert.deepEqual([of(program, 'clone', 0x3d0f00), of(program, 'clone', 17)], ['allow', 'allow']);
    for (const flag of [0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]) {
      assert.equal(of(program, 'clone', flag + 17), EPERM, flag.toString(16));
    }
    const families = { unix: 1, inet: 2, inet6: 10, netlink: 16, packet: 17, alg: 38, vsock: 40 };
    for (const [name, family] of Object.entries(families)) {
      const may = name === 'unix' || (network && family <= 16);
      assert.equal(of(program, 'socket', family), may ? 'allow' : EPERM, name);
    }
    assert.deepEqual([of(program, 'ioctl', 1, 0x5401), of(program, 'ioctl', 1, 0x5412)], ['allow', EPERM]);
    // What every runtime needs to start, wait, compute and end.
    for (const name of ['execve', 'futex', 'mmap', 'openat', 'read', 'epoll_wait', 'exit_group', 'getrandom']) {
      assert.equal(of(program, name), 'allow', name);
    }
  });
}

test('strict allows nothing that standard does not, and no network nothing that a network does not', () => {
  const argument = [0, 1, 2, 10, 16, 0x5412, 0x3d0f00, 0x10000011];
  const allows = (program: Buffer, each: number, value: number): boolean =>
    verdictOf(program, { number: each, arguments: [value, value] }) === 'allow';
  for (const functionClass of policyClasses) {
    for (const network of [true, false]) {
      const standard = seccompFilter({ functionClass, level: 'standard', network }).program;
      const wide = seccompFilter({ functionClass, level: 'standard', network: true }).program;
      const strict = seccompFilter({ functionClass, level: 'strict', network }).program;
      for (let each = 0; each < NUMBERS_MAX; each++) {
        for (const value of argument) {
          const what = `${functionClass} ${each} ${value}`;
          if (allows(strict, each, value)) assert.ok(allows(standard, each, value), what);
          if (allows(standard, each, value)) assert.ok(allows(wide, each, value), what);
        }
      }
    }
  }
});

test('classes differ where they should', () => {
  const program = (functionClass: (typeof policyClasses)[number], level: 'standard' | 'strict' = 'standard'): Buffer =>
    seccompFilter({ functionClass, level, network: true }).program;
  assert.deepEqual(
    (['compute', 'web', 'database', 'image', 'analysis'] as const).map((each) => of(program(each), 'listen')),
    ['allow', 'allow', 'allow', EPERM, EPERM],
  );
  const strict = (['compute', 'web'] as const).map((each) => of(program(each, 'strict'), 'listen'));
  assert.deepEqual(strict, [EPERM, 'allow']);
  assert.deepEqual([of(program('web'), 'shmget'), of(program('database', 'strict'), 'shmget')], [EPERM, 'allow']);
});

test('property: a program says of every number what the table says, also where jumps are long', () => {
  const verdict: fc.Arbitrary<Verdict> = fc.oneof(
    fc.constant({ kind: 'allow' } as const),
    fc.constant({ kind: 'kill' } as const),
    fc.integer({ min: 1, max: 133 }).map((errno) => ({ kind: 'errno', errno }) as const),
    fc.tuple(fc.integer({ min: 0, max: 5 }), fc.array(fc.nat(), { minLength: 1, maxLength: 20 })).map(
      ([argument, values]) => ({ kind: 'if', argument, test: { is: 'one-of', values }, otherwise: 7 }) as const,
    ),
  );
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat({ max: 450 }), verdict), { maxLength: 300 }), (entries) => {
    const table = new Map(entries);
    const program = assembleFilter(table, { kind: 'errno', errno: 1 });
    for (let each = 0; each < 460; each += 1) {
      const wanted = table.get(each) ?? { kind: 'errno', errno: 1 };
      const given = [6, 6, 6, 6, 6, 6];
      const said = verdictOf(program, { number: each, arguments: given });
      if (wanted.kind === 'errno') assert.equal(said, `errno ${wanted.errno}`);
      else if (wanted.kind !== 'if') assert.equal(said, wanted.kind);
      else assert.equal(said, wanted.test.is === 'one-of' && wanted.test.values.includes(6) ? 'allow' : 'errno 7');
    }
  }), { numRuns: 50 });
});
