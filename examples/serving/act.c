/* Acts by an exported policy, in C: observations on stdin, actions on stdout.
 *
 *   act MODEL INPUT OUTPUT [BATCH]
 *
 * MODEL is the directory of a version, e.g. models/halfcheetah/1. INPUT and OUTPUT are the tensors
 * of the signature `serving_default`, as `saved_model_cli show --dir MODEL --all` prints them, e.g.
 * serving_default_observation:0 and PartitionedCall_1:0. Both streams are rows of float32 in the
 * machine's byte order. As soon as BATCH observations are there (one, by default) their actions are
 * written, so that a control loop can sit at the other ends of two pipes; a last batch may be
 * smaller. README.md has the command that compiles it.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void fail(const char *what, const char *why) {
  fprintf(stderr, "act: %s: %s\n", what, why);
  exit(1);
}

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* Returns the output of an operation that a name such as "PartitionedCall_1:0" means. */
static TF_Output find_tensor(TF_Graph *graph, const char *name) {
  char operation[256];
  const char *colon = strrchr(name, ':');
  size_t length = colon ? (size_t)(colon - name) : strlen(name);
  if (length >= sizeof operation) fail(name, "the name is too long");
  memcpy(operation, name, length);
  operation[length] = '\0';

  TF_Output tensor = {TF_GraphOperationByName(graph, operation), colon ? atoi(colon + 1) : 0};
  if (!tensor.oper) fail(name, "the model has no such tensor");
  if (tensor.index < 0 || tensor.index >= TF_OperationNumOutputs(tensor.oper))
    fail(name, "the operation has no such output");
  if (TF_OperationOutputType(tensor) != TF_FLOAT) fail(name, "is not a tensor of float32");
  return tensor;
}

/* Returns the number of columns of a tensor [batch, columns]. */
static int64_t count_columns(TF_Graph *graph, TF_Output tensor, const char *name) {
  TF_Status *status = TF_NewStatus();
  int64_t shape[2] = {-1, -1};
  int rank = TF_GraphGetTensorNumDims(graph, tensor, status);
  check(status, name);
  if (rank != 2) fail(name, "is not a tensor [batch, columns]");
  TF_GraphGetTensorShape(graph, tensor, shape, rank, status);
  check(status, name);
  if (shape[1] < 1) fail(name, "has an unknown number of columns");
  TF_DeleteStatus(status);
  return shape[1];
}

int main(int argc, char **argv) {
  if (argc < 4 || argc > 5) {
    fprintf(stderr, "usage: act MODEL INPUT OUTPUT [BATCH] < observations > actions\n");
    return 2;
  }
  int64_t batch = argc == 5 ? atoll(argv[4]) : 1;
  if (batch < 1) fail(argv[4], "a batch has 1 row or more");

  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  /* ConfigProto(inter_op_parallelism_threads=-1): all operations on this thread. Handing a small
   * policy to another thread and back takes longer than the policy. */
  static const unsigned char config[] = {0x28, 0xff, 0xff, 0xff, 0xff, 0xff,
                                         0xff, 0xff, 0xff, 0xff, 0x01};
  TF_SetConfig(options, config, sizeof config, status);
  check(status, "the session's options");
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, argv[1]);
  TF_Output input = find_tensor(graph, argv[2]);
  TF_Output output = find_tensor(graph, argv[3]);
  int64_t columns = count_columns(graph, input, argv[2]);

  size_t row_bytes = (size_t)columns * sizeof(float);
  char *buffer = malloc((size_t)batch * row_bytes);
  if (!buffer) fail(argv[4], "there is no memory for so many rows");
  for (;;) {
    size_t bytes = fread(buffer, 1, (size_t)batch * row_bytes, stdin);
    if (ferror(stdin)) fail("stdin", "cannot be read");
    if (bytes % row_bytes) fail("stdin", "ends within an observation");
    if (!bytes) break;

    const int64_t shape[] = {(int64_t)(bytes / row_bytes), columns};
    TF_Tensor *observations = TF_AllocateTensor(TF_FLOAT, shape, 2, bytes);
    memcpy(TF_TensorData(observations), buffer, bytes);
    TF_Tensor *actions = NULL;
    TF_SessionRun(session, NULL, &input, &observations, 1, &output, &actions, 1, NULL, 0, NULL,
                  status);
    check(status, "the policy");
    fwrite(TF_TensorData(actions), 1, TF_TensorByteSize(actions), stdout);
    if (fflush(stdout)) fail("stdout", "cannot be written");
    TF_DeleteTensor(observations);
    TF_DeleteTensor(actions);
  }

  free(buffer);
  TF_CloseSession(session, status);
  check(status, argv[1]);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
