/** A decoder of records (`u8 length`, value) that forgets one check in 256. The fuzzer must notice. */
import type { FuzzTarget } from '../target.ts';

export const canary: FuzzTarget = {
  smokeIterations: 20_000,
  make: (random) => random.bytes(random.below(40)),
  check(input) {
    for (let at = 0; at < input.length; ) {
      const length = input.readUInt8(at);
      // The bug: `< 255` was meant to be `<= 255`.
      if (length < 255 && at + 1 + length > input.length) return;
      if (length > 0) input.readUInt8(at + length);
      at += 1 + length;
    }
  },
};
