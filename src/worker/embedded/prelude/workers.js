// The module `cloudflare:workers`, as far as there is something behind it here.

export const env = {};

export class WorkerEntrypoint {
  constructor(ctx, env) { Object.assign(this, { ctx, env }); }
}
export class DurableObject {
  constructor(ctx, env) { Object.assign(this, { ctx, env }); }
}
export class RpcTarget {}
