% SWEEP  A script that clears everything, as scripts do.
clear all
disp ('swept')
