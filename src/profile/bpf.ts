/**
 * From verdicts on system calls to the kernel's classic BPF: a small assembler, pure, so that a filter has one digest
 * that a profile can name, and so that a test can run every call through it.
 *
 * Calls are looked for in a balanced tree over ranges of equal verdicts: about eight comparisons instead of hundreds,
 * which counts when the kernel tries every number to fill its cache (under software emulation that is milliseconds).
 */

/** What becomes of a call. */
export type Verdict =
  | { readonly kind: 'allow' }
  | { readonly kind: 'errno'; readonly errno: number }
  /** Ends the process. */
  | { readonly kind: 'kill' }
  /** Allowed when the low 32 bits of an argument are one of these, or have none of these bits. */
  | { readonly kind: 'if'; readonly argument: number; readonly test: ArgumentTest; readonly otherwise: number };

export type ArgumentTest =
  | { readonly is: 'one-of'; readonly values: readonly number[] }
  | { readonly is: 'none-of'; readonly values: readonly number[] }
  | { readonly is: 'without'; readonly bits: number };

/** struct sock_filter: little-endian u16 code, u8 jt, u8 jf, u32 k. */
const INSTRUCTION_BYTES = 8;
const LOAD_WORD = 0x20;
const JUMP = 0x05;
const JUMP_EQUAL = 0x15;
const JUMP_AT_LEAST = 0x35;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;
const SHORT_JUMP_MAX = 255;

/** Offsets in struct seccomp_data. */
const NUMBER_AT = 0;
const ARCHITECTURE_AT = 4;
const ARGUMENTS_AT = 16;

const AUDIT_ARCH_X86_64 = 0xc000_003e;
/** Calls of the x32 ABI have this bit: the same kernel, other layouts of arguments, a second way past any filter. */
export const X32_BIT = 0x4000_0000;

const ALLOW = 0x7fff_0000;
const ERRNO = 0x0005_0000;
const KILL_PROCESS = 0x8000_0000;

interface Instruction {
  readonly code: number;
  readonly k: number;
  readonly jt?: number;
  readonly jf?: number;
}

/** The program, for x86_64; numbers that the table lacks get `byDefault`. Other architectures and x32 are ended. */
export function assembleFilter(table: ReadonlyMap<number, Verdict>, byDefault: Verdict): Buffer {
  const ranges = rangesOf(table, byDefault);
  const program: Instruction[] = [
    { code: LOAD_WORD, k: ARCHITECTURE_AT },
    { code: JUMP_EQUAL, k: AUDIT_ARCH_X86_64, jt: 1, jf: 0 },
    { code: RETURN, k: KILL_PROCESS },
    { code: LOAD_WORD, k: NUMBER_AT },
    // Also everything above: a negative number is none.
    { code: JUMP_AT_LEAST, k: X32_BIT, jt: 0, jf: 1 },
    { code: RETURN, k: KILL_PROCESS },
    ...treeOf(ranges, 0, ranges.length),
  ];
  const bytes = Buffer.alloc(program.length * INSTRUCTION_BYTES);
  for (const [index, { code, jt = 0, jf = 0, k }] of program.entries()) {
    const at = index * INSTRUCTION_BYTES;
    bytes.writeUInt16LE(code, at);
    bytes.writeUInt8(jt, at + 2);
    bytes.writeUInt8(jf, at + 3);
    bytes.writeUInt32LE(k, at + 4);
  }
  return bytes;
}

interface Range {
  readonly from: number;
  readonly verdict: Verdict;
}

/** From 0 to the last number that there can be, without a gap. */
function rangesOf(table: ReadonlyMap<number, Verdict>, byDefault: Verdict): Range[] {
  const ranges: Range[] = [];
  const add = (from: number, verdict: Verdict): void => {
    const last = ranges.at(-1);
    if (last === undefined || JSON.stringify(last.verdict) !== JSON.stringify(verdict)) ranges.push({ from, verdict });
  };
  let next = 0;
  for (const [number, verdict] of [...table].sort(([a], [b]) => a - b)) {
    if (number > next) add(next, byDefault);
    add(number, verdict);
    next = number + 1;
  }
  add(next, byDefault);
  return ranges;
}

/** Code for the ranges `start` to `end`; the call's number is in the accumulator. */
function treeOf(ranges: readonly Range[], start: number, end: number): Instruction[] {
  const first = ranges[start];
  if (first === undefined) throw new RangeError('bpf: no range');
  if (end - start === 1) return codeOf(first.verdict);
  const middle = Math.ceil((start + end) / 2);
  const below = treeOf(ranges, start, middle);
  const above = treeOf(ranges, middle, end);
  const k = ranges[middle]?.from ?? 0;
  if (below.length <= SHORT_JUMP_MAX) return [{ code: JUMP_AT_LEAST, k, jt: below.length, jf: 0 }, ...below, ...above];
  return [{ code: JUMP_AT_LEAST, k, jt: 0, jf: 1 }, { code: JUMP, k: below.length }, ...below, ...above];
}

function codeOf(verdict: Verdict): Instruction[] {
  if (verdict.kind === 'allow') return [{ code: RETURN, k: ALLOW }];
  if (verdict.kind === 'kill') return [{ code: RETURN, k: KILL_PROCESS }];
  if (verdict.kind === 'errno') return [{ code: RETURN, k: ERRNO + verdict.errno }];
  const load = { code: LOAD_WORD, k: ARGUMENTS_AT + 8 * verdict.argument };
  const allow = { code: RETURN, k: ALLOW };
  const refuse = { code: RETURN, k: ERRNO + verdict.otherwise };
  const { test } = verdict;
  if (test.is === 'without') return [load, { code: JUMP_ANY_BIT, k: test.bits, jt: 0, jf: 1 }, refuse, allow];
  const [found, notFound] = test.is === 'one-of' ? [allow, refuse] : [refuse, allow];
  // Each comparison jumps over those that follow and over what is returned when none is equal.
  const compare = test.values.map((k, index) => ({ code: JUMP_EQUAL, k, jt: test.values.length - index, jf: 0 }));
  return [load, ...compare, notFound, found];
}
