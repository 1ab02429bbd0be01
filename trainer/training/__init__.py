"""Training: splits and settings come in, a plain float32 model with trained weights goes out.

Read in this order: input_pipeline (batches), augment, model, optimizer, train_step (one compiled step), loop (calls them);
cluster and distribute choose workers and devices. Next: trainer/evaluation/ scores the model.
"""
