// The wire's messages and service, loaded from protos/. google/rpc/ is there, too; google/protobuf/ comes with protobufjs.

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

const definition = loadSync(["connect_actor/v1/connect.proto", "google/rpc/error_details.proto"], {
  includeDirs: [fileURLToPath(new URL("../../protos", import.meta.url))],
  keepCase: true,
  longs: String, // a double can't hold every channel id
  defaults: true,
  oneofs: true,
});

// Message type by its short name, with serialize and deserialize.
export const message = (name) => definition[`connect_actor.v1.${name}`];

export const { ConnectService } = grpc.loadPackageDefinition(definition).connect_actor.v1;

// The reason by which a program tells refusals apart: the first detail of a google.rpc.Status.
export const reasonOf = (status) => definition["google.rpc.ErrorInfo"].deserialize(status.details[0].value).reason;
export const statusOfCall = (error) =>
  definition["google.rpc.Status"].deserialize(error.metadata.get("grpc-status-details-bin")[0]);
