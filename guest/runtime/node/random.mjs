/**
 * Randomness of a warmed Node process. Clones of one template wake up with the same memory, so everything in it that
 * produces random values must start anew, before the first byte of the customer's code runs:
 *
 *   OpenSSL            crypto.randomBytes, randomUUID, TLS, webcrypto: reseeded by renew.node. Node's caches of random
 *                      bytes (randomUUID, randomInt) are filled on first use, which the template must never be.
 *   Math.random        V8 seeds it once per context and cannot be told to do it again: replaced from the start by a
 *                      generator whose 128-bit state is drawn anew.
 *   V8's own           is seeded too, through a flag: Node's internals keep a reference to the original function. The
 *                      flag holds 31 bits, enough for those (jitter, boundaries), not enough for `Math.random` of a
 *                      million clones.
 *   vm contexts        have a Math.random of their own, seeded from the isolate's generator, which is the template's:
 *                      each gets its seed when it is made, through that same flag.
 *   worker threads     are new isolates: V8 seeds them from OpenSSL.
 */
import { randomBytes } from 'node:crypto';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import v8 from 'node:v8';
import vm from 'node:vm';

const reseedOpenSsl = createRequire(import.meta.url)('./renew.node');
const originalRandom = Math.random;

// ---- Math.random: xoshiro128** (Blackman and Vigna), two outputs for the 53 bits of a double ------------------------

const state = new Uint32Array(4);

function next() {
  const [s0, s1, s2, s3] = state;
  const scrambled = Math.imul(s1, 5);
  const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
  const mixed2 = s2 ^ s0;
  const mixed3 = s3 ^ s1;
  state[1] = s1 ^ mixed2;
  state[0] = s0 ^ mixed3;
  state[2] = mixed2 ^ (s1 << 9);
  state[3] = (mixed3 << 11) | (mixed3 >>> 21);
  return result;
}

const { random } = {
  random() {
    return ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000;
  },
};

Object.defineProperty(Math, 'random', { value: random, writable: true, enumerable: false, configurable: true });

// ---- V8's generator -------------------------------------------------------------------------------------------------

/** Draws V8's seed for the context in which `useRandom` calls its Math.random for the first time. */
function seedContext(useRandom) {
  v8.setFlagsFromString(`--random-seed=${(randomBytes(4).readUInt32LE() >>> 1) || 1}`);
  try {
    useRandom();
  } finally {
    // Left in place, it would give all workers and contexts the same sequence.
    v8.setFlagsFromString('--random-seed=0');
  }
}

const { createContext } = vm;
const useRandom = new vm.Script('Math.random()');

vm.createContext = (...parameters) => {
  const context = createContext(...parameters);
  seedContext(() => useRandom.runInContext(context));
  return context;
};

vm.runInNewContext = (code, object, options) => {
  const settings = typeof options === 'string' ? { filename: options } : options;
  return vm.runInContext(code, vm.createContext(object, contextOptions(settings)), settings);
};

vm.Script.prototype.runInNewContext = function (object, options) {
  return this.runInContext(vm.createContext(object, contextOptions(options)), options);
};

function contextOptions({ contextName, contextOrigin, contextCodeGeneration, microtaskMode } = {}) {
  const options = { name: contextName, origin: contextOrigin, codeGeneration: contextCodeGeneration, microtaskMode };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

syncBuiltinESMExports();

// ---- renewal --------------------------------------------------------------------------------------------------------

/**
 * In the template: what the renewal runs through is loaded and compiled. V8's own generator is left out: it takes a
 * seed only when it is used for the first time.
 */
export function rehearseRenewal() {
  renew(random);
}

/** Throws when any generator could not be renewed: the process must not go on then. */
export function renewRandomness() {
  renew(originalRandom);
}

function renew(useContext) {
  const before = Uint32Array.from(state);
  reseedOpenSsl();
  const seed = randomBytes(16);
  for (let i = 0; i < state.length; i++) state[i] = seed.readUInt32LE(4 * i);
  // All zeros would stay zeros for ever.
  const same = state.every((word, i) => word === before[i]);
  if (same || state.every((word) => word === 0)) throw new Error('no randomness');
  seedContext(useContext);
}
