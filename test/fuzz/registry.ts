/**
 * Every fuzz target by name. A crash is an input for which a target's `check` throws; it is a file, so it can be kept
 * and repeated.
 */
import type { FuzzTarget } from './target.ts';
import { canary } from './targets/canary.ts';
import { egress } from './targets/egress.ts';
import { envelope } from './targets/envelope.ts';
import { feeds } from './targets/feeds.ts';
import { frame } from './targets/frame.ts';
import { layer } from './targets/layer.ts';
import { manifest } from './targets/manifest.ts';
import { message } from './targets/message.ts';
import { observer } from './targets/observe.ts';
import { oci } from './targets/oci.ts';
import { rules } from './targets/rules.ts';
import { session } from './targets/session.ts';
import { stix } from './targets/stix.ts';
import { web } from './targets/web.ts';

export const targets: Readonly<Record<string, FuzzTarget>> = {
  egress,
  envelope,
  feeds,
  frame,
  layer,
  manifest,
  message,
  observer,
  oci,
  rules,
  session,
  stix,
  web,
};

/** Not a target: a parser with a bug, which the fuzzer must find. It shows that finding nothing means something. */
export { canary };
