/** The shapes of the HTTP interface, once: /openapi.json is made of them and the client's types are. */
import { Type } from 'typebox';
import type { Static } from 'typebox';
import { limits } from '../core/limits.ts';

export const FunctionName = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$',
  maxLength: limits.serviceNameMax,
});
export const EventId = Type.String({ pattern: '^[0-9A-HJKMNP-TV-Z]{26}$' });

export const ProblemBody = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String({ pattern: '^E_[A-Z_]+$', description: 'Stable; docs/ERRORS.md has all of them.' }),
  blame: Type.String(),
  detail: Type.String(),
  remedy: Type.String(),
  trace: Type.Optional(Type.String()),
  event: Type.Optional(Type.String()),
  run: Type.Optional(Type.Union([Type.String(), Type.Null()])),
}, { additionalProperties: false, title: 'Problem', description: 'RFC 9457' });

const Failure = Type.Object({
  code: Type.String(), blame: Type.String(), message: Type.String(), remedy: Type.String(),
  detail: Type.Optional(Type.String()),
}, { additionalProperties: false });

export const EventBody = Type.Object({
  id: EventId,
  function: Type.String(),
  version: Type.Union([Type.String(), Type.Null()]),
  state: Type.Union([
    Type.Literal('queued'), Type.Literal('running'), Type.Literal('succeeded'), Type.Literal('failed'),
  ]),
  attempts: Type.Integer(),
  run: Type.Union([Type.String(), Type.Null()]),
  acceptedAt: Type.String(),
  endedAt: Type.Union([Type.String(), Type.Null()]),
  evidence: Type.Union([Type.String(), Type.Null()], { description: 'Hash of the evidence record.' }),
  failure: Type.Union([Failure, Type.Null()], { description: 'Of the last attempt.' }),
  output: Type.Optional(Type.Unknown({ description: 'The validated output, as the function wrote it.' })),
  outputBase64: Type.Optional(Type.String({ description: 'The output of a function whose result is bytes.' })),
}, { additionalProperties: false, title: 'Event' });

export const AcceptedBody = Type.Object({
  ids: Type.Array(EventId),
  links: Type.Array(Type.String()),
}, { additionalProperties: false, title: 'Accepted' });

export const EventList = Type.Object({
  events: Type.Array(EventBody),
  next: Type.Union([Type.String(), Type.Null()], { description: 'As `before` of the next page.' }),
}, { additionalProperties: false, title: 'Events' });

export const FunctionList = Type.Object({
  functions: Type.Array(Type.Object({
    name: Type.String(), version: Type.String(), deployedAt: Type.String(),
  }, { additionalProperties: false })),
}, { additionalProperties: false, title: 'Functions' });

export const HealthBody = Type.Object({
  status: Type.Union([Type.Literal('ok'), Type.Literal('draining'), Type.Literal('full')]),
}, { additionalProperties: false, title: 'Health' });

export type EventStatus = Static<typeof EventBody>;
export type Accepted = Static<typeof AcceptedBody>;
export type Events = Static<typeof EventList>;
export type Functions = Static<typeof FunctionList>;
export type ProblemDetails = Static<typeof ProblemBody>;
